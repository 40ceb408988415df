// A question, answered over Server-Sent Events or over a WebSocket, with all that goes over the wire beside it.

const WIRE_LINES = 400;
const MESSAGE_SHOWN = 4000;
const EXCHANGES = 20;
const CANCEL_PATIENCE = 3000;
const UNREACHABLE = "The server can’t be reached. Is it running?";
const BROKE_OFF = "The connection broke off before the end of the answer.";

const [composer, prompt, pace, seconds, examples, askButton, stopButton, state, figures, transcript, welcome] = [
  "composer", "prompt", "pace", "seconds", "examples", "ask", "stop", "state", "figures", "transcript", "welcome",
].map((id) => document.getElementById(id));

/** What went wrong, in words for a person. */
class Failure extends Error {}

/** A failure in the server's words: an error's payload. */
function refusal({ message, errors }) {
  const words = errors?.length ? errors.map((fault) => `${fault.key} ${fault.message}`).join("; ") : message;
  return new Failure(`${words[0].toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`);
}

// Painting

/** Calls `paint` with the next frame, however often it is asked to; who has not scrolled up stays at the end. */
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

// The wire

const wire = {
  began: 0,
  fresh: false,
  pending: [],
  counts: [],
  lines: 0,

  /** From now on, times are those since the next question. */
  begin() {
    this.began = performance.now();
    this.fresh = true;
  },
  sent(text) {
    this.add("sent", text);
  },
  received(text) {
    this.add("received", text);
  },
  note(text) {
    this.add("note", text);
  },
  add(kind, text) {
    const ms = Math.round(performance.now() - this.began);
    const shown = text.length > MESSAGE_SHOWN ? `${text.slice(0, MESSAGE_SHOWN)}…` : text;
    this.pending.push({ kind: this.fresh ? `${kind} first` : kind, ms, text: shown });
    this.fresh = false;
    if (this.pending.length > WIRE_LINES) this.pending.shift(); // a tab in the background is not painted
    this.painter.soon();
  },
  paint() {
    document.getElementById("quiet").hidden = true;
    const log = document.getElementById("log");
    for (const row of this.pending.splice(0)) {
      log.append(wireRow(row));
      this.counts.push(row.text.split("\n").length);
      this.lines += this.counts.at(-1);
    }
    while (this.lines > WIRE_LINES && this.counts.length > 1) {
      this.lines -= this.counts.shift();
      log.firstElementChild.remove();
    }
  },
};
wire.painter = painter(document.getElementById("wire"), () => wire.paint());

function wireRow({ kind, ms, text }) {
  const row = document.createElement("li");
  row.className = kind;
  const parts = { ms: `${ms} ms`, way: kind.split(" ")[0], text };
  row.append(...Object.entries(parts).map(([name, words]) => {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = words;
    return part;
  }));
  return row;
}

// Transports: each yields { event, data } until the answer ends, however it does; the signal stops it

/** Over Server-Sent Events, read from the body of a POST: an EventSource can only GET. */
async function* overEvents(question, signal) {
  const url = new URL("api/chat/stream", document.baseURI);
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream" };
  const body = JSON.stringify(question);
  wire.sent(`POST ${url.pathname}\nContent-Type: application/json\n\n${body}`);
  signal.addEventListener("abort", () => wire.note("request aborted"), { once: true });
  const response = await fetch(url, { method: "POST", headers, body, signal }).catch(() => {
    throw new Failure(UNREACHABLE);
  });
  wire.received(`${response.status} ${response.statusText}\nContent-Type: ${response.headers.get("content-type")}`);
  if (!response.ok) throw await httpFailure(response);
  const decoder = new TextDecoder();
  const parser = new EventParser();
  for await (const bytes of chunks(response.body)) {
    for (const { raw, event, data } of parser.feed(decoder.decode(bytes, { stream: true }))) {
      wire.received(raw);
      if (event === "error") throw refusal(JSON.parse(data));
      if (data !== null) yield { event, data: event === "token" ? data : JSON.parse(data) };
    }
  }
}

async function httpFailure(response) {
  const text = await response.text();
  wire.received(text);
  try {
    return refusal(JSON.parse(text).error);
  } catch {
    return new Failure(`The server answered with status ${response.status}.`); // so a proxy did, and not the server
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(() => ({ done: true })); // it broke off: there is no "done"
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // nothing where it has ended
  }
}

/** Server-sent events by the WHATWG HTML standard; text may be cut anywhere. */
export class EventParser {
  #rest = "";
  #afterCr = false;
  #block = [];

  /** The blocks that are complete: their text, and event and data; the data of a mere comment is null. */
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
    let event = "message";
    const data = [];
    for (const line of lines) {
      const [, field, value] = line.match(/^([^:]*)(?:: ?)?(.*)$/s);
      if (field === "event") event = value || "message";
      if (field === "data") data.push(value);
    }
    return { raw: lines.join("\n"), event, data: data.length ? data.join("\n") : null };
  }
}

let socket = null; // one for all questions
let call = null; // the one that runs on it
let asked = 0;

/** Over the WebSocket, of which the messages with this question's id are its answer. */
async function* overSocket(question, signal) {
  const open = await openSocket(signal);
  const messageId = ++asked;
  const say = (message) => {
    const text = JSON.stringify(message);
    wire.sent(text);
    open.send(text);
  };
  const cancel = () => {
    say({ messageType: "cancel", messageId });
    setTimeout(() => call?.messageId === messageId && open.close(), CANCEL_PATIENCE); // which cancels as well
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
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  wire.sent(`GET ${url.pathname}\nUpgrade: websocket`);
  const opening = new WebSocket(url);
  signal.addEventListener("abort", () => opening === socket || opening.close(), { once: true });
  opening.onmessage = ({ data }) => {
    wire.received(data);
    const message = JSON.parse(data);
    if (message.messageId === call?.messageId) call.inbox.enqueue(message);
  };
  return new Promise((resolve, reject) => {
    opening.onopen = () => {
      wire.received("101 Switching Protocols");
      resolve((socket = opening));
    };
    opening.onclose = ({ code, reason }) => {
      wire.note(`socket closed: ${code} ${reason}`);
      reject(new Failure(UNREACHABLE)); // nothing where it was open
      call?.inbox.close();
    };
  });
}

// The page

const transports = {
  events: { name: "SSE", stream: overEvents },
  socket: { name: "WebSocket", stream: overSocket },
};
let running = null;

async function ask() {
  const { name, stream } = transports[composer.elements.transport.value];
  const question = { prompt: prompt.value, pace: pace.valueAsNumber };
  const exchange = startExchange(question.prompt, name);
  const { signal } = (running = new AbortController());
  let done = null;
  setBusy(true);
  wire.begin();
  show("waiting", "Waiting");
  try {
    for await (const { event, data } of stream(question, signal)) {
      if (event === "token") exchange.add(data);
      if (event === "done") done = data;
    }
    if (!done && !signal.aborted) throw new Failure(BROKE_OFF);
  } catch (error) {
    if (!signal.aborted && !done) exchange.fail(error);
    if (!(error instanceof Failure)) console.error(error);
  }
  if (done) exchange.finish(done);
  else if (signal.aborted) exchange.stop();
  running = null;
  setBusy(false);
}

function stop() {
  if (!running || running.signal.aborted) return;
  show("waiting", "Stopping");
  stopButton.disabled = true;
  running.abort();
}

function startExchange(question, via) {
  welcome.hidden = true;
  const article = document.getElementById("exchange").content.cloneNode(true).firstElementChild;
  const [title, tag, answer, outcome] = ["h3", ".via", ".answer", ".outcome"].map((at) => article.querySelector(at));
  title.textContent = question.trim() || "(an empty question)";
  tag.textContent = via;
  article.className = "streaming";
  transcript.append(article);
  if (transcript.querySelectorAll("article").length > EXCHANGES) transcript.querySelector("article").remove();
  transcript.scrollTop = transcript.scrollHeight;

  const text = answer.appendChild(new Text());
  const began = performance.now();
  let [fresh, tokens, first] = ["", 0, 0];
  const count = () => `${tokens} ${tokens === 1 ? "token" : "tokens"}`;
  const screen = painter(transcript, () => {
    text.appendData(fresh);
    fresh = "";
    if (tokens) show(running.signal.aborted ? "waiting" : "streaming", running.signal.aborted ? "Stopping" : "Streaming", measure());
  });
  const measure = () => {
    const rate = tokens > 1 ? `${((tokens - 1) / ((performance.now() - first) / 1000)).toFixed(1)}/s` : "";
    return [count(), rate, `first after ${Math.round(first - began)} ms`].filter(Boolean).join(" · ");
  };
  const end = (kind, word, said) => {
    screen.now();
    article.className = kind;
    painter(transcript, () => (outcome.textContent = said)).now();
    show(kind, word, tokens ? measure() : "");
  };
  return {
    add(token) {
      first ||= performance.now();
      tokens += 1;
      fresh += token;
      screen.soon();
    },
    finish: ({ topic }) => end("done", "Done", `Complete, ${count()}${topic ? ` from the topic “${topic}”` : ""}.`),
    stop: () => end("stopped", "Stopped", `Stopped after ${count()}. The server’s work has ended too.`),
    fail(error) {
      outcome.setAttribute("role", "alert");
      end("failed", "Failed", error instanceof Failure ? error.message : `This page failed: ${error.message}`);
    },
  };
}

/** Numbers stand outside of the live region: nobody wants each of them read out. */
function show(kind, word, numbers = "") {
  state.dataset.state = kind;
  if (state.textContent !== word) state.textContent = word;
  figures.textContent = numbers;
}

function setBusy(busy) {
  const focused = document.activeElement;
  askButton.disabled = examples.disabled = busy;
  stopButton.disabled = !busy;
  if (busy && focused !== prompt && focused.matches("button")) stopButton.focus();
  // On a touch screen, focus would bring the keyboard up over the answer.
  if (!busy && !matchMedia("(pointer: coarse)").matches) prompt.focus({ preventScroll: true });
  if (!busy) prompt.select();
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) ask();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) ask();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
stopButton.addEventListener("click", stop);
examples.addEventListener("click", ({ target }) => {
  if (!target.matches("button")) return;
  prompt.value = target.textContent;
  ask();
});
pace.addEventListener("input", () => {
  seconds.textContent = `${pace.valueAsNumber.toFixed(2)} s`;
});
