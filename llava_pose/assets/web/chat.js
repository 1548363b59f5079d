// The conversation: questions, answers as they come, poses in them as chips.

import { announce, find, make } from "./dom.js";
import { askChat } from "./server.js";

const MARK = "<pose>";

/** What the model is told: complete turns `{question, views, answer}`, each view `{picture, box}` new in its turn. */
let turns = [];
let running = null;

const sameView = (view, picture) => view.picture === picture && String(view.box) === String(picture.box);
const content = ({ question, views }) => [
  ...views.map(({ picture, box }) => ({
    type: "image_url",
    image_url: { url: picture.data },
    ...(box ? { box } : {}),
  })),
  { type: "text", text: question },
];
const messages = (asked) =>
  asked.flatMap((turn) => [
    { role: "user", content: content(turn) },
    ...(turn.answer === undefined ? [] : [{ role: "assistant", content: turn.answer }]),
  ]);

/** An answer's text with its marks, as pieces of text and poses; a mark that has only begun is left out. */
function pieces(text, poses) {
  const begun = [...MARK].map((_, i) => MARK.slice(0, i + 1)).find((start) => text.endsWith(start) && start !== MARK);
  const whole = begun ? text.slice(0, -begun.length) : text;
  return whole.split(MARK).flatMap((piece, index) => (index && poses[index - 1] ? [index - 1, piece] : [piece]));
}

/** Bring a bubble up to date with an answer. What is in it already stays: a chip keeps the keyboard's focus. */
function fill(bubble, text, poses, chip) {
  const parts = pieces(text, poses);
  parts.forEach((part, index) => {
    const node = bubble.childNodes[index];
    if (typeof part === "number") node ?? bubble.append(chip(part));
    else if (node) node.textContent = part;
    else bubble.append(document.createTextNode(part));
  });
}

/** What a reader hears of an answer. */
const spoken = (text, poses) =>
  pieces(text, poses).map((part) => (typeof part === "number" ? ` (${poses[part].chip}) ` : part)).join("");

/** Start over: nothing that was said counts for the next question. */
export function forget() {
  stop();
  turns = [];
}

export function stop() {
  running?.abort();
}

export const isAnswering = () => running !== null;

/** Ask a question about pictures, and show question and answer.

`views` are all pictures of the conversation; where one that was spoken of has gone or has another box, a new
conversation begins. `chip(answer, index)` makes the element for a pose; `posed(answer)` is told of each new pose; an
answer is `{role, content, poses}`. Returns what went wrong, if anything did. */
export async function ask(question, pictures, chip, posed) {
  if (turns.some(({ views }) => views.some((view) => !pictures.some((picture) => sameView(view, picture))))) {
    turns = [];
    say(make("p", { class: "divider" }, "a new conversation, about what is shown now"));
  }
  const known = turns.flatMap(({ views }) => views.map(({ picture }) => picture));
  const fresh = pictures.filter((picture) => !known.includes(picture));
  const turn = { question, views: fresh.map((picture) => ({ picture, box: picture.box })) };
  say(userBubble(turn));
  const bubble = make("div", { class: "bubble answer waiting", "aria-busy": "true" });
  say(bubble);
  const answer = { role: "assistant", content: "", poses: [] };
  running = new AbortController();
  let [finish, problem] = [null, null];
  try {
    for await (const part of askChat(messages([...turns, turn]), running.signal)) {
      bubble.classList.remove("waiting");
      answer.content += part.content;
      answer.poses.push(...part.poses);
      finish = part.finish ?? finish;
      fill(bubble, answer.content, answer.poses, (index) => chip(answer, index));
      if (part.poses.length) posed(answer);
      scroll();
    }
    if (!finish) problem = new Error("The server broke off its answer.");
  } catch (error) {
    if (!running.signal.aborted) problem = error;
  }
  const stopped = running.signal.aborted;
  running = null;
  bubble.classList.remove("waiting");
  bubble.removeAttribute("aria-busy");
  if (finish && !stopped) turns.push({ ...turn, answer: answer.content });
  const aside = stopped ? "stopped" : problem ? "" : finish === "length" ? "cut short" : answer.content ? "" : "no answer";
  if (aside) bubble.append(make("small", {}, aside));
  else if (!answer.content) bubble.remove();
  announce(problem ? "" : `${spoken(answer.content, answer.poses)} ${aside}`);
  scroll();
  return problem;
}

function userBubble({ question, views }) {
  const thumbnails = views.map(({ picture }) => make("img", { src: picture.data, alt: picture.name }));
  return make("div", { class: "bubble question" }, ...thumbnails, make("span", {}, question));
}

export function say(element) {
  find("#log-empty").hidden = true;
  find("#log").append(element);
  scroll();
}

function scroll() {
  const log = find("#log");
  log.scrollTop = log.scrollHeight;
}
