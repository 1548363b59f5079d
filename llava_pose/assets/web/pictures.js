// Pictures out of files, the clipboard and the camera, made ready to be sent.

import { find, make, toast } from "./dom.js";

/** Larger pictures are made smaller before they are sent: the model looks at some hundred pixels a side. */
export const LARGEST_SIDE = 1600;
const LARGEST_FILE = 3e6;
const SENT_AS_THEY_ARE = ["image/jpeg", "image/png", "image/webp"];

const dataUrl = (blob) =>
  new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });

/** A picture: its name, `data` (a data URL), `image` (decoded, upright), its upright size in pixels, and its box, if any.

A file that is small enough goes as it is: browser and server both turn it upright as its EXIF data say. Others are drawn
anew. Throws an Error with words for people. */
export async function readPicture(file) {
  const name = file.name || "picture";
  const problem = `${name}: this browser cannot open it as a picture.`;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    throw new Error(problem);
  }
  const scale = Math.min(1, LARGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const asItIs = scale === 1 && file.size <= LARGEST_FILE && SENT_AS_THEY_ARE.includes(file.type);
  const data = await dataUrl(asItIs ? file : await redrawn(bitmap, scale));
  bitmap.close();
  const image = new Image();
  image.src = data;
  try {
    await image.decode();
  } catch {
    throw new Error(problem);
  }
  return { name, data, image, width: image.naturalWidth, height: image.naturalHeight, box: null };
}

function redrawn(bitmap, scale) {
  const canvas = make("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // what is behind a transparent picture
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
}

/** The picture files of a drop or a paste. */
export const filesOf = (transfer) => [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));

/** Call `open(files)` with what is dropped on or pasted into the page. */
export function onDropAndPaste(open) {
  const sheet = find("#drop-here");
  const brings = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    sheet.hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) sheet.hidden = true;
  });
  addEventListener("drop", (event) => {
    sheet.hidden = true;
    if (!brings(event)) return;
    event.preventDefault();
    const files = filesOf(event.dataTransfer);
    if (files.length) open(files);
    else toast("That is no picture.");
  });
  addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    if (!files.length) return;
    event.preventDefault();
    open(files);
  });
}

/** Take a photo: with the camera of a computer in a dialog; where that cannot be had, as a phone does it for files. */
export async function takePhoto(open) {
  const dialog = find("#camera-dialog");
  const video = find("#video");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    // No camera, none allowed, or a page that is not on https or localhost and so may not ask for it.
    find("#capture").click();
    return;
  }
  video.srcObject = stream;
  dialog.showModal();
  await video.play();
  const shoot = async () => {
    const canvas = make("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    canvas.toBlob((blob) => open([new File([blob], "photo.jpg", { type: "image/jpeg" })]), "image/jpeg", 0.92);
  };
  find("#shoot").onclick = shoot;
  find("#camera-close").onclick = () => dialog.close();
  dialog.addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
}
