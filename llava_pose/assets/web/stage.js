// The picture, with the axes of poses drawn over it.

import { find, fitCanvas } from "./dom.js";
import { drawPoses } from "./draw.js";

const shown = { picture: null, poses: [], chosen: -1 };

/** Show a picture with poses drawn on it; `chosen` stands out of several. */
export function showPicture(picture, poses = [], chosen = -1) {
  const element = find("#picture");
  if (picture !== shown.picture) {
    element.src = picture.data;
    const frame = find("#frame");
    frame.style.setProperty("--ratio", picture.width / picture.height);
    frame.style.setProperty("--widest", `${6 * picture.width}px`);
  }
  Object.assign(shown, { picture, poses, chosen });
  const told = poses.map((pose) => `${pose.name}: ${pose.chip}`).join("; ");
  element.alt = told ? `${picture.name}, with the axes of ${told}` : picture.name;
  draw();
}

function draw() {
  const { picture, poses, chosen } = shown;
  const canvas = find("#overlay");
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!picture) return;
  // Lines and letters keep their size on the screen whatever the size of the picture.
  const ratio = window.devicePixelRatio || 1;
  const scale = canvas.width / ratio / picture.width;
  const scaled = poses.map((pose) => ({
    ...pose,
    box: pose.box?.map((edge) => edge * scale),
    framed: String(pose.box) === String(picture.box), // by the box that the user can move
  }));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  drawPoses(context, scaled, picture.width * scale, picture.height * scale, chosen);
}

export function startStage() {
  fitCanvas(find("#overlay"), draw);
}
