// The four panels: what each takes from an event, and how it shows it.

import { bytes, onAxis, percent, rate } from "./format.js";

// A panel's values(data) are the figures to plot, in the order of its series;
// null is one that is missing. show(data) writes the current ones.
export const panels = [
  {
    name: "cpu",
    series: [
      { label: "All cores", colour: "--cpu", area: true },
      { label: "Busiest core", colour: "--cpu-second" },
    ],
    format: percent,
    axisFormat: (value) => `${value} %`,
    steps: [25, 50],
    top: () => 100,
    values: ({ total, cores }) => [number(total), busiest(cores)],
    show({ total, cores }) {
      figure("cpu-value", percent, total);
      showCores(numbers(cores));
    },
  },
  {
    name: "memory",
    series: [
      { label: "Used", colour: "--memory", area: true },
      { label: "Cached", colour: "--memory-second" },
    ],
    format: bytes,
    axisFormat: onAxis(bytes),
    installed: 0,
    top(max) {
      return Math.max(this.installed, max, 1);
    },
    values: ({ used, cached }) => [number(used), number(cached)],
    show({ used, total, swap }) {
      this.installed = number(total) ?? this.installed;
      figure("memory-value", percent, share(used, total));
      text("memory-detail", both(used, total) ?? "");
      text("memory-swap", number(swap) == null ? "" : `${bytes(swap)} swap in use`);
    },
  },
  {
    name: "network",
    series: [
      { label: "Received", colour: "--network", area: true },
      { label: "Sent", colour: "--network-second", area: true },
    ],
    format: rate,
    axisFormat: onAxis(rate),
    top: topOfRates,
    values: ({ received, sent }) => [number(received), number(sent)],
    show({ received, sent }) {
      figure("network-received-value", rate, received);
      figure("network-sent-value", rate, sent);
    },
  },
  {
    name: "disk",
    series: [
      { label: "Read", colour: "--disk", area: true },
      { label: "Written", colour: "--disk-second", area: true },
    ],
    format: rate,
    axisFormat: onAxis(rate),
    top: topOfRates,
    values: ({ read, written }) => [number(read), number(written)],
    show({ read, written, used, total }) {
      figure("disk-read-value", rate, read);
      figure("disk-written-value", rate, written);
      text("disk-detail", both(used, total) ?? "");
      byId("disk-meter").style.setProperty("--share", (share(used, total) ?? 0) / 100);
    },
  },
];

const byId = (id) => document.getElementById(id);

function text(id, content) {
  byId(id).textContent = content;
}

// figure sets the unit smaller than the number.
function figure(id, format, value) {
  const element = byId(id);
  if (number(value) == null) {
    element.textContent = "–";
    return;
  }
  const [amount, unit] = format(value).split(" ");
  const small = document.createElement("small");
  small.textContent = ` ${unit}`;
  element.replaceChildren(amount, small);
}

function showCores(loads) {
  const bars = byId("cpu-cores");
  while (bars.children.length > loads.length) bars.lastChild.remove();
  while (bars.children.length < loads.length) bars.append(document.createElement("i"));
  loads.forEach((load, i) => bars.children[i].style.setProperty("--share", Math.min(load, 100) / 100));
  text("cpu-detail", loads.length === 1 ? "1 core" : loads.length > 1 ? `${loads.length} cores` : "");
}

// number lets nothing through that a plot could choke on.
function number(value) {
  return Number.isFinite(value) && value >= 0 ? value : null;
}

function numbers(values) {
  return Array.isArray(values) ? values.filter((value) => number(value) != null) : [];
}

function busiest(cores) {
  const loads = numbers(cores);
  return loads.length > 0 ? Math.max(...loads) : null;
}

function share(used, total) {
  return number(used) != null && number(total) > 0 ? (used / total) * 100 : null;
}

function both(used, total) {
  return share(used, total) == null ? null : `${bytes(used)} of ${bytes(total)}`;
}

// topOfRates moves in steps, so that the axis does not tremble with each event.
function topOfRates(max) {
  const least = Math.max(max * 1.1, 4096);
  const step = 2 ** (Math.floor(Math.log2(least)) - 1);
  return Math.ceil(least / step) * step;
}
