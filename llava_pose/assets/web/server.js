// The HTTP API: asks, waits where the server is busy, and says what went wrong in words.

const KEY = "llava-pose-key";
const MOST_TRIES = 4;

/** A request that the server did not answer as hoped, told in words for people. */
export class Refusal extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** What the page does meanwhile: `askKey(wrong)` gets a key from the user (null: none); `wait(seconds, loading)`
tells why it takes longer. */
export const hooks = { askKey: async () => null, wait: () => {} };

function headers() {
  const key = sessionStorage.getItem(KEY);
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function get(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Refusal(`${path}: ${response.status}`, response.status);
  return response.json();
}

export const settings = () => get("page.json");

/** Whether the model is ready: "ready", "loading", or "gone" where no server answers. */
export async function health() {
  try {
    const response = await fetch("health");
    await response.text();
    if (response.ok) return "ready";
    return response.status === 503 ? "loading" : "gone";
  } catch {
    return "gone";
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** OpenAI's error object of a refusal. */
async function errorOf(response) {
  try {
    return (await response.json()).error ?? {};
  } catch {
    return {}; // not every error comes from the API itself: a proxy before it answers in HTML
  }
}

function inWords(status, said = "") {
  const after = said ? `: ${said}` : ".";
  switch (status) {
    case 401:
      return `The server refused the key${after}`;
    case 413:
      return `This is too large for the server${after}`;
    case 429:
      return "The server is too busy right now. Try again in a while.";
    case 503:
      return `The server cannot answer now${after}`;
    default:
      return status >= 500 ? `The server failed (${status})${after}` : said || "The server refused.";
  }
}

/** The response to a request that went well. Waits and asks again where the server is busy or still loading. */
async function send(path, body, signal) {
  let wrong = sessionStorage.getItem(KEY) !== null;
  for (let tries = 1; ; tries++) {
    let response;
    try {
      response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Refusal("The server cannot be reached. Is it still running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      const key = await hooks.askKey(wrong);
      if (key !== null) {
        sessionStorage.setItem(KEY, key);
        wrong = true;
        continue;
      }
      sessionStorage.removeItem(KEY);
    }
    const { message, code } = await errorOf(response);
    const loading = code === "loading";
    if (!loading && (![429, 503].includes(response.status) || tries >= MOST_TRIES)) {
      throw new Refusal(inWords(response.status, message), response.status);
    }
    const seconds = Math.min(Number(response.headers.get("Retry-After")) || 1, 30);
    hooks.wait(seconds, loading);
    await pause(seconds, signal);
  }
}

/** `/v1/pose`: the objects of a picture (a data URL), or of one box (x1, y1, x2, y2) of it. */
export async function askPose(image, box, signal) {
  const response = await send("v1/pose", { image, ...(box ? { boxes: [box] } : {}) }, signal);
  return response.json();
}

/** `/v1/chat/completions`, streamed: yields `{content, poses, finish}`, each part of it as it comes. */
export async function* askChat(messages, signal) {
  const response = await send("v1/chat/completions", { messages, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (held + value).split(/\r?\n/);
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") continue; // what follows is the end of the connection
      const event = JSON.parse(data);
      if (event.error) throw new Refusal(event.error.message);
      for (const { delta, finish_reason: finish } of event.choices) {
        yield { content: delta.content ?? "", poses: delta.poses ?? [], finish };
      }
    }
  }
}
