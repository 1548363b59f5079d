// One dial an angle: its distribution over the bins, the angle that was read, and the second mode where there is one.

import { makeSvg } from "./dom.js";

const WINDOW = 3; // bins on either side of a mode that belong to it
const LEAST = 0.02; // of the probability: a smaller second mode is noise
const [INNER, OUTER, MIDDLE] = [9, 43, 60];
const TURN = 2 * Math.PI;

/** Where a dial has its zero, counter-clockwise from the right. The azimuth's is the object seen from above with its
front at the bottom: the line shows where the camera stands. */
const ZERO = { azimuth: -TURN / 4, elevation: 0, theta: 0 };

const at = (angle, radius) => [MIDDLE + radius * Math.cos(angle), MIDDLE - radius * Math.sin(angle)];

/** The second mode of a distribution over a circle: `{angle, mass}`, or null where there is none worth showing. */
export function secondMode(shares) {
  const count = shares.length;
  const bin = (i) => shares[(i + count) % count];
  const around = (i, reach) => {
    const near = Array.from({ length: 2 * reach + 1 }, (_, k) => i + k - reach);
    return near.reduce((sum, k) => sum + bin(k), 0);
  };
  const apart = (a, b) => Math.min(Math.abs(a - b), count - Math.abs(a - b));
  const smooth = shares.map((_, i) => around(i, 1));
  const first = smooth.indexOf(Math.max(...smooth));
  const peaks = smooth
    .map((mass, i) => ({ i, mass }))
    .filter(({ i, mass }) => apart(i, first) > 2 * WINDOW)
    .filter(({ i, mass }) => mass >= smooth[(i + 1) % count] && mass >= smooth[(i + count - 1) % count])
    .sort((a, b) => b.mass - a.mass);
  const mass = peaks.length ? around(peaks[0].i, WINDOW) : 0;
  if (mass < LEAST) return null;
  let [x, y] = [0, 0];
  for (let k = peaks[0].i - WINDOW; k <= peaks[0].i + WINDOW; k++) {
    x += bin(k) * Math.cos(((k + 0.5) * TURN) / count);
    y += bin(k) * Math.sin(((k + 0.5) * TURN) / count);
  }
  return { angle: (Math.atan2(y, x) + TURN) % TURN, mass };
}

const signed = (angle) => Math.round((Math.atan2(Math.sin(angle), Math.cos(angle)) * 180) / Math.PI);
const degrees = (name, angle) => `${name === "azimuth" ? (signed(angle) + 360) % 360 : signed(angle)}°`;

/** The dial of an angle: `read` in radians (null where none could be), `shares` the probabilities of its bins. */
export function dial(name, read, shares) {
  const zero = ZERO[name];
  const second = secondMode(shares);
  const width = TURN / shares.length;
  const most = Math.max(...shares, 1e-9);
  const value = read === null ? "unread" : degrees(name, read);
  const told = second ? `${Math.round(100 * second.mass)}% at ${degrees(name, second.angle)}` : "one mode";
  const picture = makeSvg("svg", {
    viewBox: "-8 0 136 120",
    role: "img",
    class: `dial ${name}`,
    "aria-label": `${name} ${value}; ${second ? `second mode ${told}` : told}`,
  });
  picture.append(makeSvg("circle", { cx: MIDDLE, cy: MIDDLE, r: OUTER, class: "rim" }));
  for (let quarter = 0; quarter < 4; quarter++) {
    const angle = zero + (quarter * TURN) / 4;
    const [[x1, y1], [x2, y2], [x, y]] = [at(angle, INNER), at(angle, OUTER), at(angle, OUTER + 9)];
    picture.append(makeSvg("line", { x1, y1, x2, y2, class: "grid" }));
    const label = name === "azimuth" ? 90 * quarter : [0, 90, 180, -90][quarter];
    picture.append(makeSvg("text", { x, y: y + 3.4, "text-anchor": "middle" }, `${label}`));
  }
  picture.append(makeSvg("path", { d: shares.map((share, i) => wedge(zero + i * width, width, share / most)).join("") }));
  if (second) {
    const [[x1, y1], [x2, y2]] = [at(zero + second.angle, INNER), at(zero + second.angle, OUTER)];
    picture.append(makeSvg("line", { x1, y1, x2, y2, class: "second" }));
    picture.append(makeSvg("circle", { cx: x2, cy: y2, r: 3, class: "second" }));
  }
  if (read !== null) {
    const [[x1, y1], [x2, y2]] = [at(zero + read, 0), at(zero + read, OUTER)];
    picture.append(makeSvg("line", { x1, y1, x2, y2, class: "read" }));
    picture.append(makeSvg("circle", { cx: x2, cy: y2, r: 3.2, class: "read" }));
  }
  return { picture, value, told };
}

function wedge(from, width, share) {
  const radius = INNER + (OUTER - INNER) * share;
  const [a, b, c, d] = [at(from, INNER), at(from, radius), at(from + width, radius), at(from + width, INNER)];
  const point = ([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`;
  return `M${point(a)}L${point(b)}A${radius} ${radius} 0 0 0 ${point(c)}L${point(d)}Z`;
}
