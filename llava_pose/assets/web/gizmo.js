// The decoded rotation as a solid with its axes, first seen as the camera saw it; then from wherever the user turns to.

import { find, fitCanvas, onThemeChange } from "./dom.js";
import { drawAxes, style } from "./draw.js";
import { seenFaces, GROUND } from "./solid.js";
import { about, along, product, projected, turned } from "./space.js";

const EYE = 7; // half lengths of the solid from its middle
const CAMERA = 1.85; // where the photo's camera is drawn
const KEY_STEP = Math.PI / 18;
const PAINTS = {
  body: [104, 132, 184],
  glass: [58, 72, 98],
  tyre: [44, 48, 56],
  hub: [150, 158, 170],
  lamp: [255, 240, 170],
  tail: [222, 74, 66],
};

const shown = { rotation: null, yaw: 0, pitch: 0 };

/** Show a rotation; the view stays where the user turned it. null: nothing could be read. */
export function showRotation(rotation, words) {
  shown.rotation = rotation;
  const canvas = find("#gizmo");
  canvas.setAttribute("aria-label", rotation ? `A small car, turned as the object is: ${words}` : "No rotation");
  draw();
}

function turnTo(yaw, pitch) {
  shown.yaw = Math.atan2(Math.sin(yaw), Math.cos(yaw));
  shown.pitch = Math.min(Math.max(pitch, -Math.PI / 2), Math.PI / 2);
  find("#gizmo-reset").disabled = !shown.yaw && !shown.pitch;
  draw();
}

function draw() {
  const canvas = find("#gizmo");
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!shown.rotation || !canvas.width) return;
  const ratio = window.devicePixelRatio || 1;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const [width, height] = [canvas.width / ratio, canvas.height / ratio];
  const { color: ink, borderTopColor: line, backgroundColor: behind } = getComputedStyle(canvas);
  const view = product(about.x(shown.pitch), about.y(shown.yaw));
  const scene = {
    context,
    ink,
    line,
    center: [width / 2, height / 2],
    scale: Math.min(0.23 * width, 0.26 * height),
    view,
    directions: style.axes.map(({ direction }) => turned(product(view, shown.rotation), direction)),
  };
  const up = scene.directions[2];
  const below = along(scene.directions, [0, 0, GROUND]);
  const groundIsBehind = up[2] * EYE - (up[0] * below[0] + up[1] * below[1] + up[2] * below[2]) > 0;
  const cameraIsBehind = turned(view, [0, 0, CAMERA])[2] < 0;
  if (groundIsBehind) drawGround(scene);
  if (cameraIsBehind) drawCamera(scene);
  drawSolid(scene);
  drawAxes(context, product(view, shown.rotation), scene.center, 1.4 * scene.scale, { ink, edge: behind });
  if (!groundIsBehind) drawGround(scene);
  if (!cameraIsBehind) drawCamera(scene);
}

function trace({ context, center, scale }, points, closed = true) {
  context.beginPath();
  points.forEach((point, i) => {
    const pixel = projected(point, center, scale, EYE);
    if (i) context.lineTo(...pixel);
    else context.moveTo(...pixel);
  });
  if (closed) context.closePath();
}

function drawGround(scene) {
  const { context, line, directions } = scene;
  for (const radius of [1.6, 1.1]) {
    const ring = Array.from({ length: 60 }, (_, i) => {
      const angle = (2 * Math.PI * i) / 60;
      return along(directions, [radius * Math.cos(angle), radius * Math.sin(angle), GROUND]);
    });
    trace(scene, ring);
    context.globalAlpha = 0.25;
    context.fillStyle = line;
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = line;
    context.lineWidth = 1;
    context.stroke();
  }
}

function drawSolid(scene) {
  const { context, directions } = scene;
  context.lineJoin = "round";
  context.lineWidth = 1;
  for (const { corners, paint, light } of seenFaces(directions, [0, 0, EYE], [-0.4, 0.8, 0.9])) {
    const shade = PAINTS[paint].map((part) => Math.round(part * (0.45 + 0.6 * light)));
    trace(scene, corners);
    context.fillStyle = `rgb(${shade.join(" ")})`;
    context.strokeStyle = context.fillStyle; // closes the seams between faces
    context.fill();
    context.stroke();
  }
}

/** The photo's camera, once the view has left it. */
function drawCamera(scene) {
  const { context, ink, view } = scene;
  const aside = Math.acos(Math.min(1, Math.cos(shown.yaw) * Math.cos(shown.pitch)));
  context.globalAlpha = Math.min(Math.max((aside - 0.25) / 0.3, 0), 1);
  if (!context.globalAlpha) return;
  const at = (x, y, z) => turned(view, [x, y, z]);
  const [apex, near] = [at(0, 0, CAMERA), CAMERA - 0.4];
  const screen = [at(-0.26, 0.19, near), at(0.26, 0.19, near), at(0.26, -0.19, near), at(-0.26, -0.19, near)];
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  for (const corner of screen) {
    trace(scene, [apex, corner], false);
    context.stroke();
  }
  trace(scene, screen);
  context.stroke();
  context.setLineDash([3, 4]);
  trace(scene, [at(0, 0, near), at(0, 0, 0.7)], false);
  context.stroke();
  context.setLineDash([]);
  const [x, y] = projected(apex, scene.center, scene.scale, EYE);
  context.font = "600 12px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = ink;
  context.fillText("camera", x, y + (y > scene.center[1] ? 14 : -14));
  context.globalAlpha = 1;
}

export function startGizmo() {
  const canvas = find("#gizmo");
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const { yaw, pitch } = shown;
    const follow = (next) =>
      turnTo(yaw + (next.clientX - event.clientX) / 110, pitch + (next.clientY - event.clientY) / 110);
    const end = () => {
      canvas.removeEventListener("pointermove", follow);
      canvas.removeEventListener("pointerup", end);
      canvas.removeEventListener("pointercancel", end);
    };
    canvas.addEventListener("pointermove", follow);
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
  });
  canvas.addEventListener("keydown", (event) => {
    const turns = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Home") turnTo(0, 0);
    else if (turns[event.key]) {
      const [yaw, pitch] = turns[event.key];
      turnTo(shown.yaw + KEY_STEP * yaw, shown.pitch + KEY_STEP * pitch);
    } else return;
    event.preventDefault();
  });
  find("#gizmo-reset").addEventListener("click", () => turnTo(0, 0));
  fitCanvas(canvas, draw);
  onThemeChange(draw);
  turnTo(0, 0);
}
