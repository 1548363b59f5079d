// The page: what is open, what is shown of it, and what the buttons do.

import { boxEditor } from "./box.js";
import { ask, forget, isAnswering, say, stop } from "./chat.js";
import { announce, find, findAll, make, notice, refill, toast } from "./dom.js";
import { style } from "./draw.js";
import { startGizmo } from "./gizmo.js";
import { outdate, showPanel, startPanel } from "./panel.js";
import { onDropAndPaste, readPicture, takePhoto } from "./pictures.js";
import { askPose, health, hooks, settings } from "./server.js";
import { showPicture, startStage } from "./stage.js";

/** The conversation's pictures, the one that is shown, and the example it is, if it is one; the set of poses that is
shown: `{picture, poses, chosen, source}`, with `otherwise` to see the other pose that the chosen one may have; and the
set that the user settled on, to return to after a glance at another. */
const state = { pictures: [], picture: null, set: null, settled: null, example: null };
let page = { examples: [], spoken_names: {} };
let naming = null;

const named = (pose) => ({ ...pose, name: page.spoken_names[pose.category] ?? pose.category });

// ── what is shown ────────────────────────────────────────────────────────────────────────────────────────────────

function show(set) {
  const shown = set && (set.otherwise ? otherwise(set) : set);
  state.set = shown;
  if (set) state.picture = set.picture;
  showPicture(state.picture, shown?.poses, shown && shown.poses.length > 1 ? shown.chosen : -1);
  showPanel(shown, {
    choose: (index) => settle({ ...set, chosen: index, otherwise: false }),
    flip: () => settle({ ...set, otherwise: !set.otherwise }),
  });
  for (const chip of findAll(".chip")) {
    chip.setAttribute("aria-pressed", chip.answer === set?.source && chip.index === set.chosen);
  }
}

/** The set with the chosen object turned as it may be otherwise. */
function otherwise(set) {
  const turned = (pose) => ({ ...pose, rotation: pose.alternative.rotation, chip: `perhaps ${pose.alternative.text}` });
  return { ...set, poses: set.poses.map((pose, index) => (index === set.chosen ? turned(pose) : pose)) };
}

function settle(set) {
  state.settled = set;
  show(set);
  box.show();
  showTray();
}

function select(picture) {
  state.picture = picture;
  settle(state.settled?.picture === picture ? state.settled : null);
}

function showTray() {
  const tray = find("#tray");
  const several = state.pictures.length > 1 ? state.pictures : [];
  tray.hidden = !several.length;
  refill(
    tray,
    several.map((picture) => {
      const image = make("img", { src: picture.data, alt: picture.name });
      const pressed = { "aria-pressed": picture === state.picture };
      return make("li", {}, make("button", { type: "button", ...pressed, click: () => select(picture) }, image));
    }),
  );
}

function showSuggestions() {
  const name = state.set?.source.objects ? state.set.poses[state.set.chosen].name : null;
  const questions = [
    state.example?.question ?? "What is this?",
    ...(name ? [`Which way is the ${name} facing?`, `How far must the ${name} turn to face me?`] : []),
  ];
  find("#suggestions").replaceChildren(
    ...[...new Set(questions)].map((question) =>
      make("button", { type: "button", class: "suggestion", click: () => send(question) }, question),
    ),
  );
}

// ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────

/** Open pictures from files: in place of those of the conversation, or besides them. */
async function open(files, besides = false) {
  const opened = [];
  notice();
  for (const file of files) {
    try {
      opened.push(await readPicture(file));
    } catch (error) {
      notice(error.message);
    }
  }
  if (!opened.length) return;
  stop();
  state.pictures = besides ? [...state.pictures, ...opened] : opened;
  state.example = null;
  find("#welcome").hidden = true;
  find("#stage").hidden = false;
  find("#restart").hidden = false;
  select(opened[0]);
  announce(`${opened[0].name} is open`);
  showSuggestions();
  await name();
}

async function openExample(example) {
  const response = await fetch(example.picture);
  const blob = await response.blob();
  const opening = open([new File([blob], example.picture.split("/").pop(), { type: blob.type })]);
  await opening;
  state.example = example;
  showSuggestions();
}

/** Have the model name what is in the box, or in the whole picture. */
async function name() {
  naming?.abort();
  const mine = (naming = new AbortController());
  const { picture, settled } = state;
  const button = find("#name");
  button.setAttribute("aria-busy", "true");
  notice();
  try {
    const source = await askPose(picture.data, picture.box, mine.signal);
    if (state.picture !== picture) return;
    const poses = source.objects.map(named);
    if (state.settled === settled) settle({ picture, poses, chosen: 0, source }); // else an answer came first
    showSuggestions();
    announce(poses.map((pose) => `${pose.name}: ${pose.chip}`).join("; "));
  } catch (error) {
    if (!mine.signal.aborted) notice(error.message);
  } finally {
    if (naming === mine) button.removeAttribute("aria-busy");
  }
}

function restart() {
  forget();
  naming?.abort();
  Object.assign(state, { pictures: [], picture: null, set: null, settled: null, example: null });
  find("#log").replaceChildren(find("#log-empty"));
  find("#log-empty").hidden = false;
  find("#suggestions").replaceChildren();
  find("#stage").hidden = true;
  find("#restart").hidden = true;
  find("#welcome").hidden = false;
  showPanel(null);
  notice();
  find("#welcome .choose").focus();
}

// ── conversation ─────────────────────────────────────────────────────────────────────────────────────────────────

function chip(picture, answer, index) {
  const set = () => ({ picture, poses: answer.poses.map(named), chosen: index, source: answer });
  const glance = () => show(set());
  const back = () => show(state.settled);
  const pose = answer.poses[index];
  const element = make(
    "button",
    {
      type: "button",
      class: "chip",
      "aria-pressed": "false",
      pointerenter: glance,
      pointerleave: back,
      focus: glance,
      blur: back,
      click: () => settle(set()),
    },
    pose.chip,
  );
  return Object.assign(element, { answer, index });
}

async function send(question) {
  if (isAnswering() || !question.trim()) return;
  if (!state.picture) {
    notice("Open a picture first: drop one, paste one, or choose an example.");
    return;
  }
  notice();
  const { picture } = state;
  find("#question").value = "";
  fitQuestion();
  answering(true);
  const posed = (answer) =>
    settle({ picture, poses: answer.poses.map(named), chosen: answer.poses.length - 1, source: answer });
  const problem = await ask(question.trim(), state.pictures, (answer, index) => chip(picture, answer, index), posed);
  answering(false);
  if (problem) {
    notice(problem.message);
    const again = () => (line.remove(), send(question));
    const line = make("p", { class: "failed" }, "No answer. ", make("button", { type: "button", click: again }, "Try again"));
    say(line);
  }
}

function answering(busy) {
  find("#send").hidden = busy;
  find("#stop").hidden = !busy;
  if (!busy && document.activeElement === document.body) find("#question").focus();
}

function fitQuestion() {
  const question = find("#question");
  question.style.height = "auto";
  question.style.height = `${Math.min(question.scrollHeight + 2, 160)}px`;
}

// ── buttons ──────────────────────────────────────────────────────────────────────────────────────────────────────

const box = boxEditor(
  () => state.picture,
  () => {
    naming?.abort();
    // What is below stays where it is, or the picture would move away under the pointer.
    state.set = state.settled = null;
    showPicture(state.picture);
    outdate();
  },
  () => name(),
);

let besides = false;

function startPictures() {
  const file = find("#file");
  const choose = (adds) => () => ((besides = adds), file.click());
  for (const button of findAll(".choose")) button.addEventListener("click", choose(false));
  for (const button of findAll(".camera")) button.addEventListener("click", () => takePhoto(open));
  find("#add").addEventListener("click", choose(true));
  for (const input of [file, find("#capture")]) {
    input.addEventListener("change", () => {
      open([...input.files], input === file && besides);
      input.value = "";
    });
  }
  onDropAndPaste(open);
  find("#name").addEventListener("click", () => name());
  find("#restart").addEventListener("click", restart);
  find("#examples").replaceChildren(
    ...page.examples.map((example) =>
      make(
        "li",
        {},
        make(
          "button",
          { type: "button", click: () => openExample(example) },
          make("img", { src: example.picture, alt: "", width: 96, height: 84 }),
          example.name,
        ),
      ),
    ),
  );
}

function startConversation() {
  const question = find("#question");
  find("#ask").addEventListener("submit", (event) => {
    event.preventDefault();
    send(question.value);
  });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send(question.value);
  });
  question.addEventListener("input", fitQuestion);
  find("#stop").addEventListener("click", stop);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isAnswering() && !find("dialog[open]")) stop();
  });
}

function startTheme() {
  const button = find("#theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const tell = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("llava-pose-theme", document.documentElement.dataset.theme);
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}

function startKey() {
  const dialog = find("#key-dialog");
  hooks.askKey = (wrong) =>
    new Promise((resolve) => {
      find("#key-problem").hidden = !wrong;
      find("#key").value = "";
      dialog.returnValue = "";
      dialog.addEventListener("close", () => resolve(dialog.returnValue ? find("#key").value : null), { once: true });
      dialog.showModal();
    });
  find("#key-close").addEventListener("click", () => dialog.close());
  hooks.wait = (seconds, loading) =>
    toast(loading ? "One moment: the model is still loading" : `The server is busy: trying again in ${seconds} s`);
}

async function watchHealth() {
  const told = { ready: "ready", loading: "the model is loading …", gone: "no server" };
  for (;;) {
    const is = await health();
    const status = find("#status");
    if (status.dataset.state !== is) {
      status.dataset.state = is;
      status.textContent = told[is];
    }
    await new Promise((resolve) => setTimeout(resolve, is === "ready" ? 15_000 : 1000));
  }
}

async function start() {
  startTheme();
  startKey();
  watchHealth();
  try {
    page = await settings();
  } catch (error) {
    notice("The server cannot be reached. Is it still running?");
    return;
  }
  Object.assign(style, page);
  startStage();
  startGizmo();
  startPanel(() => state.set);
  startPictures();
  startConversation();
  document.documentElement.dataset.started = "";
}

start();
