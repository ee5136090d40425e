// The view "Live": what the service measures about itself, every two seconds.
import * as api from "./api.js";
import { $, count, h } from "./dom.js";

const EVERY = 2000;
const KEPT = 60; // samples in a curve
const NAMES = {
  requests: /_requests_total$/, buckets: /_request_seconds_bucket$/, events: /_events_total$/, inFlight: /_in_flight$/, memory: /^process_resident_memory_bytes$/,
};

let timer;
let last = null;
let rates = [];

/** Samples of a Prometheus text: `{name, labels, value}`. */
export function parsed(text) {
  return text.split("\n").flatMap((line) => {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
    if (!found) return [];
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]));
    return [{ name: found[1], labels, value: Number(found[3].replace("Inf", "Infinity")) }];
  });
}

export function startLive() {
  stopLive();
  void tick();
  timer = setInterval(() => void tick(), EVERY);
}

export function stopLive() {
  clearInterval(timer);
}

async function tick() {
  try {
    const [samples, models] = await Promise.all([api.metrics().then(parsed), api.models()]);
    const now = { at: performance.now(), total: sum(samples, NAMES.requests), buckets: histogram(samples) };
    if (last && now.total >= last.total) rates = [...rates, (now.total - last.total) / ((now.at - last.at) / 1000)].slice(-KEPT);
    drawFigures(samples, now, last, models);
    last = now;
  } catch {
    // the page says what is wrong
  }
}

const sum = (samples, name) => samples.filter((one) => name.test(one.name)).reduce((total, { value }) => total + value, 0);
const has = (samples, name) => samples.some((one) => name.test(one.name));

/** Counts up to each bound, over all routes. */
function histogram(samples) {
  const found = new Map();
  for (const { name, labels, value } of samples) {
    if (!NAMES.buckets.test(name)) continue;
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    found.set(bound, (found.get(bound) ?? 0) + value);
  }
  return [...found].sort(([a], [b]) => a - b);
}

/** The bound that `share` of the requests stay under, in seconds; those since the sample before, where there are any. */
export function quantile(buckets, before, share) {
  const earlier = new Map(before ?? []);
  let counts = buckets.map(([bound, value]) => [bound, value - (earlier.get(bound) ?? 0)]);
  if (!counts.length || counts.at(-1)[1] <= 0) counts = buckets;
  const all = counts.at(-1)?.[1] ?? 0;
  if (!all) return null;
  let [low, under] = [0, 0];
  for (const [bound, value] of counts) {
    if (value >= share * all) return bound === Infinity ? low : low + (bound - low) * (share * all - under) / Math.max(1e-9, value - under);
    [low, under] = [bound, value];
  }
  return low;
}

const milliseconds = (seconds) => seconds === null ? "–" : `${(1000 * seconds).toFixed(seconds < 0.01 ? 2 : 0)} ms`;

function drawFigures(samples, now, before, models) {
  const active = models.find((model) => model.active) ?? models[0] ?? {};
  const rate = rates.at(-1);
  const cards = [
    ["Requests per second", rate === undefined ? "…" : rate.toFixed(rate < 10 ? 1 : 0), curve(rates)],
    ["Median latency", milliseconds(quantile(now.buckets, before?.buckets, 0.5))],
    ["99th percentile", milliseconds(quantile(now.buckets, before?.buckets, 0.99))],
    ["Requests since the start", count(now.total)],
    has(samples, NAMES.events) ? ["Events accepted", count(sum(samples, NAMES.events))] : null,
    has(samples, NAMES.memory) ? ["Memory", `${Math.round(sum(samples, NAMES.memory) / 2 ** 20)} MB`] : null,
    ["Active model", active.version ?? "–"],
  ].filter(Boolean);
  $("figures").replaceChildren(...cards.map(([name, value, more]) =>
    h("div.card.figure", {}, h("p.hint", {}, name), h("p.value", {}, String(value)), more)));
  if (active.version) $("status-text").textContent = active.version;
  drawModels(models);
}

function drawModels(models) {
  const columns = [["version", "Model"], ["items", "Items"], ["users", "Users"], ["bits", "Bits"], ["created", "Trained"]]
    .filter(([name]) => models.some((model) => model[name] !== undefined && model[name] !== null));
  $("live-models").replaceChildren(h("h2", {}, "Models"), h("div.scroll", {}, h("table", {},
    h("thead", {}, h("tr", {}, columns.map(([, name]) => h("th", { scope: "col" }, name)), h("th", { scope: "col" }, "State"))),
    h("tbody", {}, models.map((model) => h("tr", {}, columns.map(([name]) =>
      h("td", {}, shown(model[name]))),
    h("td", {}, model.active ? h("span.badge", {}, "active") : model.loaded === false ? "in the folder" : "loaded")))))));
}

/** A cell: numbers with thousands apart, times to the minute. */
function shown(value) {
  if (typeof value === "number") return count(value);
  return String(value ?? "").replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d).*$/, "$1 $2");
}

function curve(values) {
  const [width, height] = [160, 36];
  const most = Math.max(...values, 1);
  const place = (value, number) => `${(number / (KEPT - 1) * width).toFixed(1)},${(height - 2 - value / most * (height - 4)).toFixed(1)}`;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "curve");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", values.map(place).join(" "));
  svg.append(line);
  return svg;
}
