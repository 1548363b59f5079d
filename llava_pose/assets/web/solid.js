// A solid with a front, a left and a top that nobody mistakes: a small car. Points are along its own front, left and up,
// in units of half its length. It is made of convex parts; each lies at one side of the body (`beside`).

import { along } from "./space.js";

const WHEEL = { radius: 0.21, half: 0.07, sides: 12, up: -0.25 };

/** The height of the ground below the solid's middle. */
export const GROUND = WHEEL.up - WHEEL.radius;

/** A block between two rectangles, `[back, front, half its width]`, at heights `low` and `high`. */
function block(beside, low, bottom, high, top, paint, topPaint = paint) {
  const ring = ([back, front, half], up) => [[back, half, up], [front, half, up], [front, -half, up], [back, -half, up]];
  const [lower, upper] = [ring(bottom, low), ring(top, high)];
  const walls = lower.map((corner, i) => ({ corners: [corner, lower[(i + 1) % 4], upper[(i + 1) % 4], upper[i]], paint }));
  return { beside, faces: [{ corners: lower, paint }, { corners: upper, paint: topPaint }, ...walls] };
}

/** A short prism about the left-right axis. */
function wheel(forward, left) {
  const { radius, half, sides, up } = WHEEL;
  const rim = (reach, side) =>
    Array.from({ length: sides }, (_, i) => {
      const angle = (2 * Math.PI * i) / sides;
      return [forward + reach * Math.cos(angle), left + side, up + reach * Math.sin(angle)];
    });
  const [right, away] = [rim(radius, -half), rim(radius, half)];
  const tread = right.map((corner, i) => ({
    corners: [corner, right[(i + 1) % sides], away[(i + 1) % sides], away[i]],
    paint: "tyre",
  }));
  const hubs = [-half, half].map((side) => ({ corners: rim(0.5 * radius, 1.02 * side), paint: "hub" }));
  return {
    beside: [0, Math.sign(left), 0],
    faces: [...tread, { corners: right, paint: "tyre" }, { corners: away, paint: "tyre" }, ...hubs],
  };
}

/** Something flat on the front or the back. */
const plate = (forward, left, [wide, low, high], paint) => ({
  beside: [Math.sign(forward), 0, 0],
  faces: [{ corners: [[left - wide, low], [left + wide, low], [left + wide, high], [left - wide, high]]
    .map(([side, up]) => [forward, side, up]), paint }],
});

const PARTS = [
  block(null, -0.27, [-0.97, 1, 0.44], 0.13, [-0.95, 0.96, 0.42], "body"),
  block([0, 0, 1], 0.13, [-0.84, 0.5, 0.39], 0.45, [-0.62, 0.1, 0.31], "glass", "body"),
  ...[0.6, -0.6].flatMap((forward) => [0.41, -0.41].map((left) => wheel(forward, left))),
  ...[0.29, -0.29].flatMap((left) => [
    plate(1.01, left, [0.1, -0.08, 0.05], "lamp"),
    plate(-0.99, left, [0.1, -0.08, 0.05], "tail"),
  ]),
];

export const mean = (points) => [0, 1, 2].map((i) => points.reduce((sum, point) => sum + point[i], 0) / points.length);
const minus = (a, b) => a.map((part, i) => part - b[i]);
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((part) => part / Math.hypot(...a));

/** The faces of the solid that an eye at `eye` sees, in the order to paint them: `{corners, light, paint}`.

`directions` are the object's front, left and up in the frame that `eye` is given in; `light` (0 to 1) is how bright a
face is in a light that comes from `lamp`. */
export function seenFaces(directions, eye, lamp) {
  const towards = unit(lamp);
  const placed = PARTS.map(({ beside, faces }) => {
    const shapes = faces.map(({ corners, paint }) => ({ corners: corners.map((c) => along(directions, c)), paint }));
    const middle = mean(shapes.map(({ corners }) => mean(corners)));
    const side = beside && along(directions, beside);
    const seen = shapes.flatMap(({ corners, paint }) => {
      const center = mean(corners);
      let normal = unit(cross(minus(corners[1], corners[0]), minus(corners[2], corners[0])));
      const outward = faces.length > 1 ? minus(center, middle) : side;
      if (dot(normal, outward) < 0) normal = normal.map((part) => -part);
      if (dot(normal, minus(eye, center)) <= 0) return [];
      return [{ corners, paint, light: 0.5 + 0.5 * dot(normal, towards) }];
    });
    // What lies at a side of the body that is turned to the eye is before the body, else behind it.
    const before = side ? Math.sign(dot(side, minus(eye, middle))) : 0;
    return { seen, before, far: Math.hypot(...minus(eye, middle)) };
  });
  placed.sort((a, b) => a.before - b.before || b.far - a.far);
  return placed.flatMap(({ seen }) => seen);
}
