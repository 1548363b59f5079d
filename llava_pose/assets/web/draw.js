// The axes and boxes of poses on a picture, as `llava_pose/overlay.py` draws them.

import { make } from "./dom.js";
import { projected, turned } from "./space.js";

/** What the server told of how to draw: see `page_settings` in `llava_pose/app.py`. */
export const style = { axes: [], axis_camera_distance: 5, share_of_box: 0, share_of_part: 0, box_color: [0, 0, 0] };

const FONT = "system-ui, sans-serif";
const OUTLINE = "rgb(16 16 16 / 0.7)";
const LETTER_EDGE = "rgb(16 16 16 / 0.86)";
const rgb = (parts, alpha = 1) => `rgb(${parts.join(" ")} / ${alpha})`;
const mixed = (a, b, share) => a.map((part, i) => Math.round(part * (1 - share) + b[i] * share));

/** Where each pose's axes go in a picture: `{pose, center, length}`, in the picture's pixels.

In the middle of its box; poses without a box are spread evenly over the picture's middle. */
export function places(poses, width, height) {
  const unplaced = poses.filter((pose) => !pose.box);
  return poses.map((pose) => {
    if (pose.box) {
      const [x1, y1, x2, y2] = pose.box;
      return { pose, center: [(x1 + x2) / 2, (y1 + y2) / 2], length: style.share_of_box * Math.max(x2 - x1, y2 - y1) };
    }
    const column = width / unplaced.length;
    const center = [(unplaced.indexOf(pose) + 0.5) * column, height / 2];
    return { pose, center, length: style.share_of_part * Math.min(column, height) };
  });
}

/** The axes of a rotation as they are drawn, the farthest first: `{name, color, tip, away}`, tips in pixels. */
export function arrows(rotation, center, length) {
  return style.axes
    .map(({ name, direction, color }) => {
      const end = turned(rotation, direction);
      const tip = projected(end, center, length, style.axis_camera_distance);
      return { name, color, tip, depth: end[2], away: end[2] < -0.05 };
    })
    .sort((a, b) => a.depth - b.depth);
}

/** Draw axes; pale where others are meant; letters in `ink` with an `edge` that sets them off. */
export function drawAxes(context, rotation, center, length, { strong = true, ink = "#fff", edge = LETTER_EDGE } = {}) {
  const sorted = arrows(rotation, center, length);
  context.save();
  context.globalAlpha = strong ? 1 : 0.45;
  for (const { color, tip, away } of sorted) {
    const shown = away ? mixed(color, [128, 128, 128], 0.45) : color;
    drawArrow(context, center, tip, rgb(shown), Math.max(2, length / (away ? 22 : 15)));
  }
  const size = Math.min(Math.max(11, length / 7), 28);
  for (const { name, tip } of sorted) drawLabel(context, center, tip, name, size, { ink, edge });
  context.restore();
}

function drawArrow(context, start, tip, fill, width) {
  const [dx, dy] = [tip[0] - start[0], tip[1] - start[1]];
  const reach = Math.hypot(dx, dy);
  const head = 3.2 * width;
  context.beginPath();
  if (reach < head * 0.5) {
    context.arc(tip[0], tip[1], head * 0.5, 0, 2 * Math.PI);
  } else {
    const [ax, ay] = [dx / reach, dy / reach];
    const at = (forward, side) => [start[0] + ax * forward - ay * side, start[1] + ay * forward + ax * side];
    const neck = reach - Math.min(head, reach);
    const half = width / 2;
    const corners = [
      at(0, -half), at(neck, -half), at(neck, -head / 2), at(reach, 0), at(neck, head / 2), at(neck, half), at(0, half),
    ];
    corners.forEach((corner, i) => (i ? context.lineTo(...corner) : context.moveTo(...corner)));
    context.closePath();
  }
  context.lineJoin = "round";
  context.lineWidth = Math.max(2, width * 0.36);
  context.strokeStyle = OUTLINE;
  context.stroke();
  context.fillStyle = fill;
  context.fill();
}

function drawLabel(context, start, tip, text, size, { ink, edge }) {
  const [dx, dy] = [tip[0] - start[0], tip[1] - start[1]];
  const reach = Math.hypot(dx, dy);
  // A short arrow's label goes to its lower right, clear of the dot.
  const [ax, ay] = reach > 0.5 * size ? [dx / reach, dy / reach] : [1.6, 1.4];
  const [x, y] = [tip[0] + ax * size * 1.3, tip[1] + ay * size * 0.8];
  context.font = `600 ${size}px ${FONT}`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = Math.max(2, size / 4.5);
  context.strokeStyle = edge;
  context.strokeText(text, x, y);
  context.fillStyle = ink;
  context.fillText(text, x, y);
}

function drawBox(context, [x1, y1, x2, y2], width) {
  context.strokeStyle = rgb(style.box_color);
  context.lineWidth = width;
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
}

function drawTag(context, corner, text, size) {
  const [x, y] = [Math.max(corner[0], 0), Math.max(corner[1], 1.4 * size)];
  context.font = `600 ${size}px ${FONT}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillStyle = rgb(style.box_color);
  context.fillRect(x, y - 1.4 * size, context.measureText(text).width + 0.8 * size, 1.4 * size);
  context.fillStyle = "rgb(16 16 16)";
  context.fillText(text, x + 0.4 * size, y - 0.7 * size);
}

/** Everything there is to draw on a picture of a size in its pixels; `chosen` (or none, −1) stands out of several. */
export function drawPoses(context, poses, width, height, chosen = -1) {
  const several = poses.length > 1;
  const placed = places(poses, width, height);
  placed.forEach(({ pose, center, length }, index) => {
    const label = several ? `${index + 1} ${pose.name}` : pose.name;
    const line = Math.max(2, Math.min(width, height) / 180);
    if (pose.box && !pose.framed) drawBox(context, pose.box, line);
    if (pose.box) drawTag(context, pose.box, label, Math.max(11, 7 * line));
    else if (several) drawTag(context, [center[0] - 0.5 * length, center[1] - 1.2 * length - 16], label, 16);
  });
  const order = placed.map((place, index) => ({ ...place, strong: chosen < 0 || chosen === index }));
  order.sort((a, b) => a.strong - b.strong); // what stands out is drawn last
  for (const { pose, center, length, strong } of order) {
    if (pose.rotation) drawAxes(context, pose.rotation, center, length, { strong });
  }
}

const NARROWEST = 560;

/** The picture with its axes above a strip of chips, as `answer_picture` has it: a canvas. */
export function answerPicture(picture, poses) {
  const scale = Math.max(1, NARROWEST / picture.width);
  const [width, height] = [Math.round(picture.width * scale), Math.round(picture.height * scale)];
  const enlarged = poses.map((pose) => ({ ...pose, box: pose.box?.map((edge) => edge * scale) }));
  const chips = poses.map(
    (pose, index) => `${poses.length > 1 ? `${index + 1} ` : ""}${pose.name} · ${pose.chip}`,
  );
  const canvas = make("canvas");
  const context = canvas.getContext("2d");
  let size = Math.max(16, width / 40);
  context.font = `${size}px ${FONT}`;
  const widest = Math.max(...chips.map((chip) => context.measureText(chip).width), 1);
  size = Math.min(size, (size * (width - 3 * size)) / widest);
  const [line, pad] = [Math.round(size * 1.9), Math.round(size * 0.6)];
  canvas.width = width;
  canvas.height = height + pad + line * (chips.length + 1);
  context.drawImage(picture.image, 0, 0, width, height);
  drawPoses(context, enlarged, width, height);
  context.translate(0, height);
  drawStrip(context, chips, canvas, { size, line, pad });
  return canvas;
}

function drawStrip(context, chips, canvas, { size, line, pad }) {
  context.fillStyle = "rgb(24 26 31)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = `${size}px ${FONT}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  let x = pad;
  for (const { name, color } of style.axes) {
    context.fillStyle = rgb(color);
    context.fillRect(x, pad / 2 + line / 2 - size / 10, 1.4 * size, size / 5);
    context.fillStyle = "rgb(240 242 245)";
    context.fillText(name, x + 1.8 * size, pad / 2 + line / 2);
    x += 3.2 * size + context.measureText(name).width;
  }
  chips.forEach((chip, index) => {
    const top = pad / 2 + line * (index + 1);
    context.fillStyle = "rgb(48 52 61)";
    context.beginPath();
    context.roundRect(pad, top, context.measureText(chip).width + 1.2 * size, line * 0.86, line * 0.3);
    context.fill();
    context.fillStyle = "rgb(240 242 245)";
    context.fillText(chip, pad + 0.6 * size, top + line * 0.43);
  });
}
