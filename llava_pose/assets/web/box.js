// The box around an object: drawn, moved and resized with a mouse, a finger or the arrow keys.

import { announce, find } from "./dom.js";

const SMALLEST = 0.02; // of the picture's longer side: less was a click or a tap, not a box
const STEP = 0.02;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Let the user give a picture its box. `picture()` is the one that is shown; `changed()` is called at each change,
`done()` when a drag has ended or Enter was pressed. Returns `{show, begin, remove}`. */
export function boxEditor(picture, changed, done) {
  const frame = find("#frame");
  const element = find("#box");
  const button = find("#draw-box");

  const arm = (armed) => {
    frame.classList.toggle("armed", armed);
    button.setAttribute("aria-pressed", armed);
  };

  function show() {
    const { box, width, height } = picture() ?? {};
    element.hidden = !box;
    find("#remove-box").hidden = !box;
    if (!box) return;
    const [x1, y1, x2, y2] = box;
    element.style.left = `${(100 * x1) / width}%`;
    element.style.top = `${(100 * y1) / height}%`;
    element.style.width = `${(100 * (x2 - x1)) / width}%`;
    element.style.height = `${(100 * (y2 - y1)) / height}%`;
    element.setAttribute("aria-label", `Box around the object: ${x1}, ${y1} to ${x2}, ${y2}`);
  }

  /** Take corners in any order, inside the picture and in whole pixels. */
  function set(edges) {
    const { width, height } = picture();
    const [xs, ys] = [[edges[0], edges[2]], [edges[1], edges[3]]].map((pair, axis) =>
      pair.map((edge) => Math.round(clamp(edge, 0, axis ? height : width))).sort((a, b) => a - b),
    );
    picture().box = [xs[0], ys[0], Math.max(xs[1], xs[0] + 1), Math.max(ys[1], ys[0] + 1)];
    show();
    changed();
  }

  function moved([x1, y1, x2, y2], dx, dy) {
    const { width, height } = picture();
    const [right, down] = [clamp(dx, -x1, width - x2), clamp(dy, -y1, height - y2)];
    return [x1 + right, y1 + down, x2 + right, y2 + down];
  }

  function remove() {
    if (!picture()?.box) return;
    picture().box = null;
    arm(false);
    show();
    changed();
    announce("The box is gone");
    button.focus();
  }

  /** A box in the picture's middle, ready to be changed; on a touch screen the next drag draws it anew. */
  function begin() {
    const { width, height, box } = picture();
    arm(!frame.classList.contains("armed"));
    if (!frame.classList.contains("armed")) return;
    if (!box) set([0.2 * width, 0.2 * height, 0.8 * width, 0.8 * height]);
    element.focus();
  }

  function pixel(event) {
    const shown = frame.getBoundingClientRect();
    const { width, height } = picture();
    return [((event.clientX - shown.left) / shown.width) * width, ((event.clientY - shown.top) / shown.height) * height];
  }

  frame.addEventListener("pointerdown", (event) => {
    const corner = event.target.dataset.corner?.split(" ").map(Number);
    const onBox = element.contains(event.target);
    const draws = !onBox && (event.pointerType !== "touch" || frame.classList.contains("armed"));
    if (event.button !== 0 || !(onBox || draws)) return;
    event.preventDefault();
    frame.setPointerCapture(event.pointerId);
    const [start, before] = [pixel(event), picture().box];
    let dragged = false;
    const follow = (next) => {
      const [x, y] = pixel(next);
      const { width, height } = picture();
      const far = Math.max(Math.abs(x - start[0]), Math.abs(y - start[1])) > SMALLEST * Math.max(width, height);
      dragged ||= far || (onBox && (x !== start[0] || y !== start[1]));
      if (!dragged) return;
      if (!onBox) set([...start, x, y]);
      else if (!corner) set(moved(before, x - start[0], y - start[1]));
      else set(before.map((edge, index) => (index === corner[0] ? x : index === corner[1] ? y : edge)));
    };
    const end = () => {
      frame.removeEventListener("pointermove", follow);
      frame.removeEventListener("pointerup", end);
      frame.removeEventListener("pointercancel", end);
      if (!dragged) return;
      arm(false);
      element.focus({ preventScroll: true });
      done();
    };
    frame.addEventListener("pointermove", follow);
    frame.addEventListener("pointerup", end);
    frame.addEventListener("pointercancel", end);
  });

  element.addEventListener("keydown", (event) => {
    const { box, width, height } = picture();
    const step = Math.max(1, Math.round(STEP * Math.max(width, height)));
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[
      event.key
    ] ?? [0, 0];
    if (dx || dy) {
      const [x1, y1, x2, y2] = box;
      set(event.shiftKey ? [x1, y1, Math.max(x2 + dx, x1 + 2), Math.max(y2 + dy, y1 + 2)] : moved(box, dx, dy));
      announce(element.getAttribute("aria-label"));
    } else if (event.key === "Enter") {
      arm(false);
      done();
    } else if (event.key === "Delete" || event.key === "Backspace") remove();
    else return;
    event.preventDefault();
  });

  button.addEventListener("click", begin);
  find("#remove-box").addEventListener("click", remove);
  return { show };
}
