// A panel's plot: uPlot in the page's colours, with a legend that follows the
// crosshair.

import { minute, second } from "./format.js";

const { uPlot } = globalThis; // a classic script, it has no module of its own

const MINUTE = 60_000;
const AXIS_FONT = "11px system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif";
const POWERS_OF_TWO = Array.from({ length: 50 }, (_, power) => 2 ** power);

// Colours live in the stylesheet, where the colour scheme picks them.
const colours = new Map();
function colour(name) {
  if (!colours.has(name)) {
    colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  }
  return colours.get(name);
}

export function onSchemeChange(redraw) {
  matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => {
    colours.clear();
    redraw();
  });
}

// createPlot draws into element and legend, both inside a panel. The series
// are {label, colour, area}; format turns a value into text, top gives the
// upper end of the axis for the highest value in sight.
export function createPlot({ element, legend, series, format, axisFormat, steps, top }) {
  const keys = series.map((one) => addKey(legend, one));
  const time = legend.appendChild(document.createElement("li"));
  time.className = "legend-time";

  const read = (plot) => {
    const i = plot.cursor.idx;
    keys.forEach((key, k) => {
      const value = plot.data[k + 1][i ?? plot.data[0].length - 1];
      key.textContent = value == null ? "–" : format(value);
    });
    time.textContent = i == null ? "" : second(plot.data[0][i]);
  };

  const plot = new uPlot(
    {
      ...size(element),
      legend: { show: false },
      padding: [8, 20, 0, 0], // room for the last label of the time axis
      cursor: {
        y: false,
        drag: { x: false, y: false },
        sync: { key: "panels" },
        points: { size: 7 },
      },
      scales: {
        x: { time: false },
        y: { range: (_, __, max) => [0, top(max ?? 0)] },
      },
      axes: [timeAxis(), valueAxis(axisFormat, steps)],
      series: [{}, ...series.map(line)],
      hooks: { setCursor: [read] },
    },
    series.map(() => []).concat([[]]),
    element,
  );
  new ResizeObserver(() => plot.setSize(size(element))).observe(element);

  return {
    draw(columns, { min, max }) {
      plot.batch(() => {
        plot.setData(columns, false);
        plot.setScale("x", { min, max });
      });
      read(plot);
    },
  };
}

function size(element) {
  return { width: element.clientWidth, height: element.clientHeight };
}

function addKey(legend, { label, colour }) {
  const item = legend.appendChild(document.createElement("li"));
  item.style.setProperty("--key", `var(${colour})`);
  item.append(`${label} `);
  return item.appendChild(document.createElement("b"));
}

function line({ label, colour: name, area }) {
  return {
    label,
    stroke: () => colour(name),
    width: area ? 2 : 1.25,
    fill: area ? (plot, k) => fade(plot, plot.series[k].max, colour(name)) : undefined,
    paths: uPlot.paths.spline(),
    points: { show: true, size: 4, filter: isolated },
  };
}

// The gradient starts at the peak in sight, so that a low curve has colour too.
function fade(plot, peak, hex) {
  const bottom = plot.bbox.top + plot.bbox.height;
  const top = Math.min(plot.valToPos(peak ?? 0, "y", true), bottom - 1);
  const gradient = plot.ctx.createLinearGradient(0, top, 0, bottom);
  gradient.addColorStop(0, `${hex}66`);
  gradient.addColorStop(1, `${hex}08`);
  return gradient;
}

// A value with gaps on both sides has no line, so it gets a point.
function isolated(plot, k) {
  const values = plot.data[k];
  return values.flatMap((value, i) =>
    value != null && values[i - 1] == null && values[i + 1] == null ? [i] : [],
  );
}

function timeAxis() {
  return {
    stroke: () => colour("--quiet"),
    font: AXIS_FONT,
    size: 28,
    space: 56,
    gap: 6,
    incrs: [MINUTE, 2 * MINUTE, 5 * MINUTE],
    values: (_, times) => times.map(minute),
    grid: { show: false },
    ticks: { show: false },
  };
}

function valueAxis(format, steps = POWERS_OF_TWO) {
  return {
    stroke: () => colour("--quiet"),
    font: AXIS_FONT,
    size: 68,
    space: 34,
    gap: 8,
    incrs: steps,
    values: (_, values) => values.map(format),
    grid: { stroke: () => colour("--grid"), width: 1 },
    ticks: { show: false },
  };
}
