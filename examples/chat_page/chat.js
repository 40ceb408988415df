// A question, answered over Server-Sent Events or over a WebSocket, and beside it all that goes over the wire.

const WIRE_LINES = 400;
const MESSAGE_SHOWN = 4000;
const EXCHANGES = 20;
const CANCEL_PATIENCE = 3000;
const UNREACHABLE = "The server can't be reached. Is it running?";
const BROKE_OFF = "The connection broke off before the end of the answer.";

const byId = (id) => document.getElementById(id);
const [composer, prompt, pace, transcript] = ["composer", "prompt", "pace", "transcript"].map(byId);

/** What went wrong, in words for a person. */
class Failure extends Error {}

/** A failure in the server's words: the payload of an error. */
function refusal({ message, errors }) {
  const words = errors?.length ? errors.map((fault) => `${fault.key} ${fault.message}`).join("; ") : message;
  return new Failure(`${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`);
}

/** Paints with the next frame, however often it is asked to. Who has not scrolled up stays at the end. */
function painter(scroller, paint) {
  let frame = null;
  function now() {
    cancelAnimationFrame(frame);
    frame = null;
    const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 8;
    paint();
    if (atEnd) scroller.scrollTop = scroller.scrollHeight;
  }
  return { now, soon: () => (frame ??= requestAnimationFrame(now)) };
}

function element(name, className, ...content) {
  const made = document.createElement(name);
  made.className = className;
  made.append(...content);
  return made;
}

// The wire

const ARROWS = { sent: "→", received: "←", note: "·" };
const pending = [];
const wire = { began: 0, lengths: [], lines: 0, first: true };
const wirePanel = painter(byId("wire"), paintWire);

/** Show what was sent or received; a note is what happens to the connection itself. */
function onWire(kind, text) {
  const ms = Math.round(performance.now() - wire.began);
  const shown = text.length > MESSAGE_SHOWN ? `${text.slice(0, MESSAGE_SHOWN)}…` : text;
  pending.push({ kind, ms, text: shown, first: wire.first });
  wire.first = false;
  if (pending.length > WIRE_LINES) pending.shift(); // in a tab in the background, nothing is painted
  wirePanel.soon();
}

function paintWire() {
  byId("quiet").hidden = true;
  const rows = pending.splice(0).map(wireRow);
  byId("log").append(...rows);
  for (const row of rows) {
    wire.lengths.push(row.textContent.split("\n").length);
    wire.lines += wire.lengths.at(-1);
  }
  while (wire.lines > WIRE_LINES && wire.lengths.length > 1) {
    wire.lines -= wire.lengths.shift();
    byId("log").firstElementChild.remove();
  }
}

function wireRow({ kind, ms, text, first }) {
  const way = element("span", "way", ARROWS[kind]);
  Object.assign(way, { role: "img", ariaLabel: kind });
  const parts = text.split(/^([\w-]+:)/m); // names of fields, of headers and of events alike, are every second one
  const words = parts.map((part, at) => (at % 2 ? element("span", "field", part) : part));
  const [time, message] = [element("span", "ms", ms), element("span", "text", ...words)];
  return element("li", first ? `${kind} first` : kind, time, way, message);
}

// Transports: each yields { event, data } until the answer ends, however that comes; the signal stops it

/** Over Server-Sent Events, read from the answer to a POST: an EventSource can only GET. */
async function* overEvents(question, signal) {
  const url = new URL("api/chat/stream", document.baseURI);
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify(question);
  onWire("sent", `POST ${url.pathname}\nContent-Type: application/json\n\n${body}`);
  signal.addEventListener("abort", () => onWire("note", "request aborted"));
  const response = await fetch(url, { method: "POST", headers, body, signal }).catch(() => {
    throw new Failure(UNREACHABLE);
  });
  onWire("received", `HTTP ${response.status}\nContent-Type: ${response.headers.get("content-type")}`);
  if (!response.ok) throw await httpFailure(response);
  const decoder = new TextDecoder();
  const parser = new EventParser();
  for await (const bytes of chunks(response.body)) {
    for (const { raw, event, data } of parser.feed(decoder.decode(bytes, { stream: true }))) {
      onWire("received", raw);
      if (event === "error") throw refusal(JSON.parse(data));
      if (data !== null) yield { event, data: event === "done" ? JSON.parse(data) : data };
    }
  }
}

async function httpFailure(response) {
  const text = await response.text().catch(() => "");
  onWire("received", text);
  try {
    return refusal(JSON.parse(text).error);
  } catch {
    return new Failure(`The server answered with status ${response.status}.`); // or rather a proxy before it did
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(() => ({ done: true })); // one that broke off has ended too
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // of no use where it has ended
  }
}

/** Server-sent events by the rules of the WHATWG HTML standard. */
export class EventParser {
  #rest = "";
  #afterCr = false;
  #block = [];

  /** The blocks that this text, cut anywhere, completes: as they came, and as event and data; a comment has no data. */
  *feed(text) {
    const fresh = this.#afterCr && text.startsWith("\n") ? text.slice(1) : text; // the other half of a CRLF
    if (text) this.#afterCr = fresh.endsWith("\r");
    const lines = (this.#rest + fresh).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line) this.#block.push(line);
      else if (this.#block.length) yield this.#event(this.#block.splice(0));
    }
  }

  #event(lines) {
    const fields = lines.map((line) => line.match(/^([^:]*)(?:: ?)?(.*)$/s).slice(1));
    const data = fields.filter(([name]) => name === "data").map(([, value]) => value);
    const event = fields.findLast(([name]) => name === "event")?.[1] || "message";
    return { raw: lines.join("\n"), event, data: data.length ? data.join("\n") : null };
  }
}

let socket = null; // one for all questions
let call = null; // the one that runs on it
let calls = 0;

/** Over the WebSocket: the messages with this question's id are its answer. */
async function* overSocket(question, signal) {
  const opened = await openSocket(signal);
  const messageId = ++calls;
  const say = (message) => {
    onWire("sent", JSON.stringify(message));
    opened.send(JSON.stringify(message));
  };
  const cancel = () => {
    say({ messageType: "cancel", messageId });
    setTimeout(() => call?.messageId === messageId && opened.close(), CANCEL_PATIENCE); // which cancels as well
  };
  const answer = new ReadableStream({ start: (inbox) => (call = { messageId, inbox }) });
  say({ messageType: "action", action: "chat:stream", params: question, messageId });
  signal.addEventListener("abort", cancel);
  try {
    for await (const { error, streaming, event, chunk } of chunks(answer)) {
      if (error) throw refusal(error);
      if (!streaming) return;
      yield { event, data: chunk };
    }
  } finally {
    signal.removeEventListener("abort", cancel);
    call = null;
  }
}

function openSocket(signal) {
  if (socket?.readyState === WebSocket.OPEN) return socket;
  const url = new URL("api/socket", document.baseURI);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  onWire("note", `socket opening: ${url}`);
  const opening = new WebSocket(url);
  signal.addEventListener("abort", () => opening === socket || opening.close());
  opening.onmessage = ({ data }) => {
    onWire("received", data);
    const message = JSON.parse(data);
    if (message.messageId === call?.messageId) call.inbox.enqueue(message);
  };
  return new Promise((resolve, reject) => {
    opening.onopen = () => {
      onWire("note", "socket open");
      resolve((socket = opening));
    };
    opening.onclose = ({ code, reason }) => {
      onWire("note", `socket closed: ${code} ${reason}`);
      reject(new Failure(UNREACHABLE)); // says nothing where it was open
      if (opening === socket) call?.inbox.close();
    };
  });
}

// The page

const transports = { events: ["SSE", overEvents], socket: ["WebSocket", overSocket] };
let running = null; // stops the answer that comes in
let asked = "";

async function ask() {
  const [name, stream] = transports[composer.elements.transport.value];
  asked = prompt.value;
  const { signal } = (running = new AbortController());
  const exchange = startExchange(name, signal);
  Object.assign(wire, { began: performance.now(), first: true });
  setBusy(true);
  show("waiting", "Waiting");
  let done = null;
  try {
    for await (const { event, data } of stream({ prompt: asked, pace: pace.valueAsNumber }, signal)) {
      if (event === "token") exchange.add(data);
      if (event === "done") done = data;
    }
    if (!done && !signal.aborted) throw new Failure(BROKE_OFF);
  } catch (error) {
    if (!signal.aborted && !done) exchange.fail(error);
    if (!(error instanceof Failure)) console.error(error);
  }
  if (done) exchange.finish(done.topic);
  else if (signal.aborted) exchange.stop();
  running = null;
  setBusy(false);
}

function stop() {
  if (!running || running.signal.aborted) return;
  running.abort();
  show("waiting", "Stopping", byId("figures").textContent);
}

function startExchange(via, signal) {
  const question = asked.trim() || "(an empty question)";
  const text = new Text();
  const outcome = element("p", "outcome");
  const head = element("div", "question", element("h3", "", question), element("span", "via", via));
  const article = element("article", "streaming", head, element("p", "answer", text), outcome);
  byId("welcome").hidden = true;
  transcript.append(article);
  if (transcript.querySelectorAll("article").length > EXCHANGES) transcript.querySelector("article").remove();
  transcript.scrollTop = transcript.scrollHeight;
  transcript.scrollIntoView({ block: "nearest" }); // in a low window it may be above what is seen

  const began = performance.now();
  let [fresh, tokens, first, said] = ["", 0, 0, ""];
  const count = () => `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
  const figures = () => {
    const rate = ((tokens - 1) * 1000) / (performance.now() - first);
    const perSecond = tokens > 1 ? ` · ${rate.toFixed(rate < 100 ? 1 : 0)}/s` : "";
    return tokens ? `${count()}${perSecond} · first in ${Math.round(first - began)} ms` : "no tokens";
  };
  const panel = painter(transcript, () => {
    text.appendData(fresh);
    fresh = "";
    outcome.textContent = said;
    if (!said && !signal.aborted) show("streaming", "Streaming", figures());
  });
  const end = (kind, word, words) => {
    article.className = kind;
    said = words;
    panel.now();
    show(kind, word, figures());
  };
  return {
    add(token) {
      first ||= performance.now();
      tokens += 1;
      fresh += token;
      panel.soon();
    },
    finish: (topic) => end("done", "Done", `Complete: ${count()}${topic ? ` from the topic “${topic}”` : ""}.`),
    stop: () => end("stopped", "Stopped", `Stopped after ${count()}.`),
    fail(error) {
      outcome.setAttribute("role", "alert");
      end("failed", "Failed", error instanceof Failure ? error.message : `This page has a fault: ${error.message}`);
    },
  };
}

/** Figures are no part of the live region: nobody wants each of them read out. */
function show(kind, word, figures = "no tokens yet") {
  const state = byId("state");
  state.dataset.state = kind;
  if (state.textContent !== word) state.textContent = word;
  byId("figures").textContent = figures;
}

function setBusy(busy) {
  const focused = document.activeElement;
  byId("ask").disabled = byId("examples").disabled = busy;
  byId("stop").disabled = !busy;
  if (busy && focused.matches("button")) byId("stop").focus();
  if (!busy && (composer.contains(focused) || focused === document.body)) returnToPrompt();
}

function returnToPrompt() {
  if (matchMedia("(pointer: coarse)").matches) return; // its keyboard would come up over the answer
  prompt.focus({ preventScroll: true });
  if (prompt.value === asked) prompt.select(); // what has been typed since is kept
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) ask();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});
document.addEventListener("keydown", ({ key }) => key === "Escape" && stop());
byId("stop").addEventListener("click", stop);
byId("examples").addEventListener("click", ({ target }) => {
  if (!target.matches("button")) return;
  prompt.value = target.textContent;
  ask();
});
pace.addEventListener("input", () => {
  byId("seconds").textContent = `${pace.valueAsNumber.toFixed(2)} s/word`;
});
returnToPrompt();
