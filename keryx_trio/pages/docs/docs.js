// The page: chooses an operation, sends what its fields say, and shows what is answered while it comes.

import { EventReader } from "./events.js";
import { FieldError, operationsOf, requestOf } from "./operations.js";

const MOST_EVENTS = 1000; // rows that are kept; the first go when more come
const MOST_BYTES = 16 * 1024 * 1024; // of a body that is no event stream
const MOST_SHOWN = 256 * 1024; // characters of a text

const $ = (id) => document.getElementById(id);
const source = new URL("openapi.json", location.href);
const inputs = new Map(); // by field
let described, operations, operation, call;

function make(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

// The form

function choose(wanted) {
  operation = wanted;
  $("operation").value = wanted.operationId;
  $("summary").textContent = wanted.description ?? wanted.summary;
  $("send").textContent = wanted.streams ? "Start" : "Send";
  inputs.clear();
  $("fields").replaceChildren(...wanted.fields.map(row));
}

function row(field, place) {
  const id = `field-${place}`;
  const input = control(field);
  Object.assign(input, { id, name: field.name, required: field.required });
  input.addEventListener("input", () => complain(input, ""));
  inputs.set(field, input);
  const label = make("label", { htmlFor: id }, field.name);
  if (field.required) label.append(make("span", { className: "muted" }, " required"));
  if (field.place === "header") label.append(make("span", { className: "muted" }, " header"));
  const parts = [label, input];
  if (field.description) {
    parts.splice(1, 0, make("p", { className: "muted", id: `${id}-about` }, field.description));
    input.setAttribute("aria-describedby", `${id}-about`);
  }
  parts.push(make("p", { className: "fault", id: `${id}-fault`, hidden: true }));
  return make("div", { className: "field" }, ...parts);
}

function control(field) {
  const shown = (value) => (typeof value === "string" && field.kind === "text" ? value : JSON.stringify(value));
  const hint = field.hint == null ? "" : shown(field.hint);
  const value = field.example === undefined ? "" : shown(field.example);
  if (field.kind === "choice") {
    const options = field.choices.map((choice) => new Option(String(choice), String(choice)));
    const none = new Option(hint ? `(${hint.replace(/^"|"$/g, "")})` : "(none)", "");
    return make("select", {}, ...(field.required ? options : [none, ...options]));
  }
  if (field.kind === "file") return make("input", { type: "file", multiple: field.several });
  if (field.kind === "json") {
    const text = field.example === undefined ? "" : JSON.stringify(field.example, null, 2);
    const rows = Math.min(12, Math.max(2, text.split("\n").length));
    const placeholder = hint || (field.several ? "[]" : "{}");
    return make("textarea", { rows, placeholder, value: text, spellcheck: false });
  }
  const type = field.secret ? "password" : field.kind;
  return make("input", { type, step: "any", placeholder: hint, value, spellcheck: false });
}

function complain(input, fault) {
  const told = $(`${input.id}-fault`);
  told.textContent = fault;
  told.hidden = !fault;
  input.setAttribute("aria-invalid", String(Boolean(fault)));
}

function read(field) {
  const input = inputs.get(field);
  if (input.validity.badInput) throw new FieldError(field, "is a number");
  return input.files ?? input.value;
}

// The answer

function show(state, words, figures = "") {
  $("state").dataset.state = state;
  $("state").textContent = words;
  $("figures").textContent = figures;
}

function clear() {
  $("empty").hidden = true;
  $("events").replaceChildren();
  $("body").hidden = $("file").hidden = true;
  URL.revokeObjectURL($("save").href);
  $("save").removeAttribute("href");
}

async function send() {
  let url, init;
  try {
    [url, init] = requestOf(described, operation, read, source);
  } catch (error) {
    if (!(error instanceof FieldError)) throw error;
    const input = inputs.get(error.field);
    complain(input, error.message);
    input.focus();
    return;
  }
  clear();
  call = { controller: new AbortController(), began: performance.now(), events: 0, bytes: 0, failed: false };
  $("send").disabled = !($("stop").disabled = false);
  show("waiting", "Waiting");
  try {
    await receive(await fetch(url, { ...init, signal: call.controller.signal }));
  } catch (error) {
    const stopped = call.controller.signal.aborted;
    show(stopped ? "stopped" : "failed", stopped ? "Stopped" : `Failed: ${error.message}`, figures());
  } finally {
    const hadFocus = document.activeElement === $("stop");
    $("stop").disabled = !($("send").disabled = false);
    if (hadFocus) $("send").focus();
  }
}

function figures() {
  const { answered, began, events, bytes } = call;
  const count = events ? `${events} ${events === 1 ? "event" : "events"}, ` : bytes ? `${bytes} bytes, ` : "";
  return `${answered ? `${answered}, ` : ""}${count}${((performance.now() - began) / 1000).toFixed(1)} s`;
}

async function receive(answer) {
  const kind = (answer.headers.get("Content-Type") ?? "").split(";")[0];
  call.answered = String(answer.status);
  call.failed = !answer.ok;
  const reader = answer.body?.getReader();
  if (kind === "text/event-stream" && reader) await receiveEvents(reader);
  else await receiveBody(reader, kind);
  show(call.failed ? "failed" : "done", call.failed ? "Failed" : "Done", figures());
}

async function receiveEvents(reader) {
  const decoder = new TextDecoder();
  const parser = new EventReader();
  show("streaming", "Streaming", figures());
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    const rows = [...parser.feed(decoder.decode(piece.value, { stream: true }))].map(eventRow);
    const scroller = $("scroller");
    const follows = scroller.scrollTop + scroller.clientHeight > scroller.scrollHeight - 40;
    $("events").append(...rows.slice(-MOST_EVENTS));
    while ($("events").childElementCount > MOST_EVENTS) $("events").firstElementChild.remove();
    if (follows) scroller.scrollTop = scroller.scrollHeight;
    show("streaming", "Streaming", figures());
  }
}

function eventRow({ event, data, id }) {
  call.events += 1;
  call.failed ||= event === "error";
  const when = `${((performance.now() - call.began) / 1000).toFixed(2)} s`;
  const name = make("span", { className: "name" }, event);
  if (id) name.append(make("span", { className: "muted" }, ` #${id}`));
  return make("li", { className: event === "error" ? "alarm" : "" },
    make("span", { className: "muted when" }, when), name, make("span", { className: "data" }, pretty(data)));
}

function pretty(text) {
  if (!/^\s*[[{]/.test(text) || text.length > MOST_SHOWN) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 1).replace(/\n */g, " ");
  } catch {
    return text; // it only looked like JSON
  }
}

async function receiveBody(reader, kind) {
  const pieces = [];
  for (let piece = await reader?.read(); piece && !piece.done; piece = await reader.read()) {
    call.bytes += piece.value.length;
    if (call.bytes > MOST_BYTES) {
      call.controller.abort();
      throw new Error("it is larger than this page keeps");
    }
    pieces.push(piece.value);
    show("streaming", "Receiving", figures());
  }
  const blob = new Blob(pieces, { type: kind });
  if (/^(text\/|application\/(.*\+)?(json|xml))/.test(kind)) {
    const text = await blob.text();
    $("body").textContent = (kind.endsWith("json") ? indented(text) : text).slice(0, MOST_SHOWN);
    $("body").hidden = false;
  } else if (blob.size) {
    $("save").href = URL.createObjectURL(blob);
    $("save").textContent = `Save ${blob.size} bytes of ${kind}`;
    $("file").hidden = false;
  }
}

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // of a type that it is not
  }
}

// The rest of the page

const swagger = window.SwaggerUIBundle;

// Swagger UI shows an answer when it is whole, which a stream may never be: its button leads here instead.
function ownStreams() {
  const wrap = (Original, { React }) => (props) => {
    const own = operations.find((each) => each.path === props.path && each.method === props.method && each.streams);
    if (!own) return React.createElement(Original, props);
    const onClick = () => {
      choose(own);
      $("live").scrollIntoView();
      $("send").focus({ preventScroll: true });
    };
    return React.createElement("button", { className: "btn execute", type: "button", onClick }, "Try it live");
  };
  return { wrapComponents: { execute: wrap } };
}

async function open() {
  const answer = await fetch(source);
  if (!answer.ok) throw new Error(`openapi.json was answered with ${answer.status}`);
  described = await answer.json();
  const { title, version, description } = described.info;
  document.title = $("title").textContent = title;
  $("version").textContent = version;
  $("described").textContent = description ?? "";
  $("described").hidden = !description;
  const all = operationsOf(described);
  operations = swagger ? all.filter((each) => each.streams) : all;
  $("about").textContent = swagger ? "Streams, shown live. Everything else can be tried below." : "";
  $("plain").hidden = Boolean(swagger);
  for (const each of operations) {
    $("operation").append(new Option(`${each.method.toUpperCase()} ${each.path}`, each.operationId));
  }
  $("live").hidden = operations.length === 0;
  if (operations.length) choose(operations[0]);
  $("operation").addEventListener("change", ({ target }) =>
    choose(operations.find((each) => each.operationId === target.value)));
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!$("send").disabled) send();
  });
  $("stop").addEventListener("click", () => call.controller.abort());
  addEventListener("pagehide", () => call?.controller.abort());
  if (swagger) {
    swagger({ url: source.href, domNode: $("swagger"), deepLinking: true, validatorUrl: null, plugins: [ownStreams] });
  }
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches); // what Swagger UI goes by
dark.addEventListener("change", paint);
paint();

open().catch((error) => {
  $("broken").textContent = `The description could not be shown: ${error.message}`;
  $("broken").hidden = false;
});
