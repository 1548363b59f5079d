// All there is to say of one pose: angles, doubts, dials, the solid, and what can be taken away.

import { find, make, refill, toast } from "./dom.js";
import { dial } from "./dials.js";
import { answerPicture } from "./draw.js";
import { showRotation } from "./gizmo.js";

const ANGLES = ["azimuth", "elevation", "theta"];
const percent = (share) => `${Math.round(100 * share)}%`;

/** Show a pose of a set `{picture, poses, chosen, source, otherwise}`; null: none. `choose(index)` is called for another
of it, `flip()` for the other pose that an object may have, and back. */
export function showPanel(set, { choose, flip } = {}) {
  const pose = set?.poses[set.chosen];
  find("#pose").inert = false;
  find("#pose").hidden = !pose;
  find("#pose-empty").hidden = Boolean(pose);
  if (!pose) return;
  const { class_probability: probability } = pose;
  find("#pose-name").textContent = probability === null ? pose.name : `${pose.name} ${percent(probability)}`;
  find("#pose-words").textContent = pose.words;
  const choice = find("#pose-choice");
  choice.hidden = set.poses.length < 2;
  refill(
    choice,
    set.poses.map((other, index) =>
      make(
        "button",
        { type: "button", "aria-pressed": index === set.chosen, click: () => choose(index) },
        `${index + 1} ${other.name}`,
      ),
    ),
  );
  find("#dials").replaceChildren(
    ...ANGLES.map((name) => {
      const { picture, value, told } = dial(name, pose[name], pose.distributions[name]);
      return make("figure", {}, picture, make("figcaption", {}, name, make("b", {}, value), make("small", {}, told)));
    }),
  );
  showRotation(pose.rotation, pose.chip);
  refill(find("#facts"), facts(pose, set.otherwise, flip).flatMap(([name, ...told]) => [make("dt", {}, name), make("dd", {}, ...told)]));
}

/** What is shown holds no more, until something else is. */
export function outdate() {
  find("#pose").inert = true;
}

function facts(pose, otherwise, flip) {
  const word = pose.calibrated
    ? "calibrated: fitted to how often the model was right"
    : "not calibrated: the model's own word";
  const bar = make("meter", { min: 0, max: 1, value: pose.confidence, "aria-hidden": "true" });
  const told = [["how sure", bar, make("b", {}, percent(pose.confidence)), make("small", {}, word)]];
  if (pose.expected_error !== null) {
    told.push(["error to expect", make("b", {}, `${Math.round((pose.expected_error * 180) / Math.PI)}°`)]);
  }
  const other = pose.alternative;
  if (other) {
    const button = make("button", { type: "button", id: "other", "aria-pressed": Boolean(otherwise), click: flip }, "Show it");
    told.push(["or turned", make("b", {}, percent(other.probability)), other.text, button]);
  } else told.push(["or turned", "no other pose is likely"]);
  return told;
}

/** The buttons below act on what `current()` says is shown. */
export function startPanel(current) {
  find("#copy").addEventListener("click", async () => {
    const text = JSON.stringify(current().source, null, 2);
    try {
      await navigator.clipboard.writeText(text);
      toast("Copied");
    } catch {
      // Browsers give the clipboard to https and localhost only.
      find("#copy-text").value = text;
      find("#copy-dialog").showModal();
      find("#copy-text").select();
    }
  });
  find("#copy-close").addEventListener("click", () => find("#copy-dialog").close());
  find("#download").addEventListener("click", () => {
    const { picture, poses } = current();
    answerPicture(picture, poses).toBlob((blob) => {
      const address = URL.createObjectURL(blob);
      const name = picture.name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N} _-]/gu, "") || "picture";
      make("a", { href: address, download: `${name}-axes.png` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 10_000);
    }, "image/png");
  });
}
