// Elements of the page. Text goes in as text nodes only: nothing that the model, a file or the user says becomes HTML.

export const find = (selector) => document.querySelector(selector);
export const findAll = (selector) => [...document.querySelectorAll(selector)];

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** An HTML element: attributes by name (a function listens for that event), then children, strings as text. */
export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** The same of SVG. */
export const makeSvg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

/** New children for an element; the keyboard's focus stays at the same place among its buttons. */
export function refill(element, children) {
  const place = [...element.querySelectorAll("button")].indexOf(document.activeElement);
  element.replaceChildren(...children);
  if (place >= 0) element.querySelectorAll("button")[place]?.focus();
}

/** Have a screen reader say something, once it is done with what it says. */
export const announce = (text) => {
  find("#live").textContent = text;
};

let toastTimer = 0;

/** A short word at the foot of the page, gone after a while. */
export function toast(text) {
  const line = find("#toast");
  line.textContent = text;
  line.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => line.classList.remove("shown"), 4000);
}

/** What went wrong, above everything, until the next thing goes right. No text: nothing went wrong. */
export function notice(text = "") {
  const line = find("#notice");
  line.textContent = text;
  line.hidden = !text;
}

/** The pixels of a canvas follow the size it is shown at; `draw` is called whenever that changes. */
export function fitCanvas(canvas, draw) {
  new ResizeObserver(() => {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    draw();
  }).observe(canvas);
}

/** Call something whenever light turns to dark or back. */
export function onThemeChange(call) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", call);
  new MutationObserver(call).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}
