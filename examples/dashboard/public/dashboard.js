// The page: one stream feeds four panels, a status and a few counters.

import { bytes } from "./format.js";
import { History } from "./history.js";
import { panels } from "./panels.js";
import { createPlot, onSchemeChange } from "./plot.js";
import { HubStream, parse } from "./stream.js";

const RATE_SPAN = 5_000; // milliseconds that the rates are averaged over
const STALE_AFTER = 10_000; // figures older than this are dimmed
const NOTICE_SPAN = 10_000; // how long a reset stays on the page

const STATES = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting…",
  missed: "Missed events",
};
const REASONS = {
  expired: "older than what the hub keeps",
  epoch: "the hub's record began anew",
  limit: "more than one replay may hold",
  unknown: "the position is not one of this hub",
};

const byId = (id) => document.getElementById(id);

const views = new Map(panels.map((panel) => [panel.name, createView(panel)]));
const stream = new HubStream(
  "/events",
  panels.map((panel) => `metrics-${panel.name}`),
  panels.map((panel) => panel.name),
);
const connection = { state: "connecting", reason: "" };
const recent = []; // {at, size} of the events within RATE_SPAN
let total = 0;
let resets = 0;
let noticeTimer = 0; // of the reset that is on the page, if one is
let scheduled = false; // a redraw waits for its animation frame

stream.addEventListener("state", ({ detail }) => {
  // EventSource tells of an end only that it ended: keep what hub:close said.
  const reason = detail.reason ?? (detail.state === connection.state ? connection.reason : "");
  Object.assign(connection, { state: detail.state, reason });
  showStatus();
});
stream.addEventListener("reset", ({ detail }) => announceReset(detail));
stream.addEventListener("event", ({ detail }) => receive(detail));
byId("missed-dismiss").addEventListener("click", endNotice);
onSchemeChange(redraw);

// The plots move on, and the rates fall, when nothing arrives too.
setInterval(redraw, 1_000);
redraw();
stream.open();

function createView(panel) {
  const element = byId(panel.name);
  return {
    panel,
    element,
    history: new History(panel.series.length),
    latest: null, // data of the last event
    plot: createPlot({
      ...panel,
      element: element.querySelector(".plot"),
      legend: element.querySelector(".legend"),
      top: (max) => panel.top(max),
    }),
  };
}

function receive({ name, data }) {
  total++;
  recent.push({ at: performance.now(), size: data.length });

  const view = views.get(name);
  const figures = parse(data);
  if (usable(figures)) {
    view.latest = figures;
    view.history.add(figures.time, view.panel.values(figures));
  } else {
    console.warn(`ignored a ${name} event without usable figures`);
  }
  redraw();
}

// A publisher may leave figures out, but an event has a time and one of them.
function usable(figures) {
  const { time, ...rest } = figures ?? {};
  return Number.isFinite(time) && Object.values(rest).some(Number.isFinite);
}

function redraw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    views.forEach(drawView);
    drawCounters();
  });
}

function drawView({ panel, element, history, latest, plot }) {
  if (latest) panel.show(latest);
  element.toggleAttribute("data-stale", !latest || Date.now() - latest.time > STALE_AFTER);
  plot.draw(history.columns(), history.window());
}

function drawCounters() {
  const since = performance.now() - RATE_SPAN;
  while (recent[0]?.at < since) recent.shift();
  const size = recent.reduce((sum, event) => sum + event.size, 0);

  byId("rate-events").textContent = ((recent.length * 1_000) / RATE_SPAN).toFixed(1);
  byId("rate-bytes").textContent = bytes((size * 1_000) / RATE_SPAN);
  byId("total-events").textContent = total;
  byId("position").textContent = stream.position || "–";
}

function showStatus() {
  const state = connection.state === "live" && noticeTimer ? "missed" : connection.state;
  const text = connection.reason ? `${STATES[state]} (${connection.reason})` : STATES[state];
  const status = byId("status");
  status.dataset.state = state;
  // Equal text is not set again: a screen reader would read it again.
  if (status.textContent !== text) status.textContent = text;
}

function announceReset(holes) {
  resets++;
  byId("missed-count").textContent = resets;
  byId("missed-detail").replaceChildren(...holes.map(describeHole));
  byId("missed").hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(endNotice, NOTICE_SPAN);
  showStatus();
}

function describeHole({ channel, reason }) {
  const item = document.createElement("li");
  const name = document.createElement("code");
  name.textContent = channel;
  item.append(name, ` ${reason}: ${REASONS[reason] ?? "no further word"}`);
  return item;
}

function endNotice() {
  clearTimeout(noticeTimer);
  noticeTimer = 0;
  byId("missed").hidden = true;
  showStatus();
}
