// The last minutes of one channel's values, ordered by their own time.

const WINDOW = 5 * 60_000; // milliseconds that a plot shows
const GAP = 5_000; // a longer silence is drawn as a gap, not bridged by a line

export class History {
  #width;
  #rows = []; // {time, values}, rising in time

  constructor(width) {
    this.#width = width;
  }

  // add keeps a row in its place: publishers differ by a second, and a curl
  // user's clock by more. A row of the same time replaces the one before, so
  // that a replay never doubles anything.
  add(time, values, now = Date.now()) {
    this.#trim(now);
    if (time < now - WINDOW - GAP || time > now + WINDOW) return;

    const rows = this.#rows;
    let i = rows.length;
    while (i > 0 && rows[i - 1].time >= time) i--;
    const replaced = rows[i]?.time === time ? 1 : 0;
    rows.splice(i, replaced, { time, values });
  }

  // window returns the span to show. It ends now, or a little later where the
  // publisher's clock runs ahead of the browser's.
  window(now = Date.now()) {
    const newest = this.#rows.at(-1)?.time ?? now;
    const end = Math.max(now, newest);
    return { min: end - WINDOW, max: end };
  }

  // columns returns the rows as uPlot wants them, one array for the times and
  // one for each value; null breaks the line.
  columns() {
    const columns = Array.from({ length: this.#width + 1 }, () => []);
    const push = (time, values) => {
      columns[0].push(time);
      for (let i = 0; i < this.#width; i++) columns[i + 1].push(values?.[i] ?? null);
    };
    let last = Infinity;
    for (const { time, values } of this.#rows) {
      if (time - last > GAP) push(last + GAP / 2, null);
      push(time, values);
      last = time;
    }
    return columns;
  }

  #trim(now) {
    const oldest = now - WINDOW - GAP;
    const keep = this.#rows.findIndex((row) => row.time >= oldest);
    if (keep !== 0) this.#rows.splice(0, keep < 0 ? this.#rows.length : keep);
  }
}
