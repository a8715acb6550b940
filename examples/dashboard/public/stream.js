// One subscription to the hub that comes back after whatever ended it.

const RETRY_MIN = 2_000;
const RETRY_JITTER = 3_000; // so that many pages do not come back in step

// HubStream is an EventTarget with these events:
//   state   detail {state, reason}: connecting, live or reconnecting
//   reset   detail [{channel, reason}]: for these channels events are gone
//   event   detail {name, data}: something was published
export class HubStream extends EventTarget {
  #path;
  #channels;
  #names;
  #position = ""; // id of the last event seen

  constructor(path, channels, names) {
    super();
    this.#path = path;
    this.#channels = channels;
    this.#names = names;
  }

  get position() {
    return this.#position;
  }

  open() {
    const source = new EventSource(this.#url());
    source.addEventListener("hub:open", (event) => this.#opened(event));
    source.addEventListener("hub:reset", (event) => this.#reset(event));
    source.addEventListener("hub:close", (event) => this.#closing(event));
    source.addEventListener("error", () => this.#failed(source));
    for (const name of this.#names) {
      source.addEventListener(name, (event) => this.#received(name, event));
    }
  }

  // The browser sends Last-Event-ID at its own reconnects, and that wins over
  // the position in the address. Only a new EventSource depends on the latter.
  #url() {
    const query = new URLSearchParams({ since: this.#position || "earliest" });
    for (const channel of this.#channels) query.append("channel", channel);
    return `${this.#path}?${query}`;
  }

  #opened(event) {
    this.#keepPosition(event);
    this.#tell("state", { state: "live" });
    if (parse(event.data)?.resume === "reset") this.#reset(event);
  }

  #reset(event) {
    this.#keepPosition(event);
    const holes = parse(event.data)?.reset;
    this.#tell("reset", Array.isArray(holes) ? holes : []);
  }

  #closing(event) {
    this.#keepPosition(event);
    this.#tell("state", { state: "reconnecting", reason: parse(event.data)?.reason });
  }

  #received(name, event) {
    this.#keepPosition(event);
    this.#tell("event", { name, data: event.data });
  }

  // After a refusal (a 502 while a proxy restarts) EventSource gives up for
  // good; otherwise it is on its way back already.
  #failed(source) {
    this.#tell("state", { state: "reconnecting" });
    if (source.readyState !== EventSource.CLOSED) return;
    setTimeout(() => this.open(), RETRY_MIN + Math.random() * RETRY_JITTER);
  }

  #keepPosition(event) {
    if (event.lastEventId) this.#position = event.lastEventId;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

// parse returns undefined for what is not JSON: a page must outlive its data.
export function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
