// Server-sent events from pieces of text, by the rules of the HTML standard (section "Server-sent events").

export class EventReader {
  #rest = "";
  #event = "";
  #data = [];
  #id = "";
  #started = false;

  // The events that are whole once this text has come.
  *feed(text) {
    if (!this.#started && text) {
      this.#started = true;
      text = text.replace(/^\uFEFF/, "");
    }
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/); // a CR at the very end may be half of a CRLF
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length) yield { event: this.#event || "message", data: this.#data.join("\n"), id: this.#id };
        this.#event = this.#id = ""; // a reader keeps the id; here each event shows its own
        this.#data = [];
      } else {
        this.#take(line);
      }
    }
  }

  #take(line) {
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
    if (name === "event") this.#event = value ?? "";
    else if (name === "data") this.#data.push(value ?? "");
    else if (name === "id" && !value?.includes("\0")) this.#id = value ?? "";
  }
}
