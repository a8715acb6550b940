// Numbers as text. All sizes are in binary units: KiB is 1024 bytes.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function percent(value) {
  return `${value.toFixed(1)} %`;
}

export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const decimals = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(decimals)} ${UNITS[unit]}`;
}

export function rate(value) {
  return `${bytes(value)}/s`;
}

// On an axis the steps are whole, so a decimal would only be noise.
export function onAxis(format) {
  return (value) => format(value).replace(".0 ", " ");
}

const minuteFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const secondFormat = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });

export function minute(time) {
  return minuteFormat.format(time);
}

export function second(time) {
  return secondFormat.format(time);
}
