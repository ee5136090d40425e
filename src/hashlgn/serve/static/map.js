// The view "Map": the catalogue in two dimensions, up to 100,000 points on a canvas.
import * as api from "./api.js";
import { $, count, debounced, h } from "./dom.js";
import { openItem } from "./item.js";
import { titleSearch } from "./search.js";

const COLORS = {
  light: ["#1f6f8b", "#d1495b", "#e08a1e", "#5b8c3e", "#7d5ba6", "#2a9d8f", "#b5578f", "#8a6d3b", "#3f6fd1", "#b23a1e", "#6b8e9e", "#c29b0c"],
  dark: ["#5fb7d4", "#f08593", "#f2b264", "#9ccc76", "#b89ae0", "#63cfc1", "#e18fc0", "#c9ac78", "#8aa9f2", "#f0886a", "#a4bdc9", "#e3c653"],
};
const OTHER = { light: "#98a2ab", dark: "#6d7983" };
const FULL = 65_535;
const NEAR = 14; // pixels within which a point is under the pointer
const MIDDLE = 8;

let points = null; // what the service gave, and order, place by id, extent, fit
let loaded = null; // the model that the points are of
let asked = null; // {model, answer} of the request for them
let camera = { x: FULL / 2, y: FULL / 2, scale: 0 };
let chosen = new Set();
let marks = { history: [], answers: [] };
let focus = null;
let drawing = 0;
let canvas, context;

export function startMap() {
  canvas = $("canvas");
  context = canvas.getContext("2d");
  titleSearch($("map-search"), { id: "find", label: "Find a title on the map", placeholder: "Search titles", chosen: showOnMap });
  new ResizeObserver(() => { if (points && !canvas.closest("[hidden]")) resize(); }).observe(canvas.parentElement);
  $("zoom-in").addEventListener("click", () => zoom(1.6));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
  $("zoom-all").addEventListener("click", () => { if (points) whole(); });
  canvas.addEventListener("keydown", keyed);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.offsetX, event.offsetY);
  }, { passive: false });
  startPointer();
}

/** Show the map of a model, with the items of a history and of answers marked. */
export async function showMap(model, given) {
  marks = given;
  if (loaded !== model || !points) {
    points = null;
    $("map-hint").textContent = "The map is being drawn. The first one of a model takes a moment.";
    let found;
    try {
      if (asked?.model !== model) asked = { model, answer: api.map(model) };
      found = await asked.answer;
    } catch (error) {
      asked = null;
      $("map-hint").textContent = error.message;
      return;
    }
    if (asked?.model !== model) return; // another model was chosen meanwhile
    if (points && loaded === model) return resize(); // another call waited for the same answer
    const place = new Map(found.items.map((item, number) => [item, number]));
    // Frequent genres first, so that rare ones are drawn over them.
    const grey = COLORS.light.length; // genres without a colour lie below, frequent ones below rare ones
    const layer = (number) => found.genre[number] < grey ? found.genre[number] : -1;
    const order = [...found.items.keys()].sort((a, b) => layer(a) - layer(b));
    points = { ...found, place, order, ...extent(found), fit: 1 };
    loaded = model;
    chosen = new Set();
    camera.scale = 0;
    drawLegend();
    const all = found.items.length < found.catalogue ? `The ${count(found.items.length)} most popular of ${count(found.catalogue)} items.` : `${count(found.items.length)} items.`;
    $("map-hint").textContent = `${all} Two principal components of their vectors: what answers the same queries lies close together.`;
  }
  resize();
}

export async function showOnMap(item) {
  location.hash = "#map";
  await showMap(loaded ?? "", marks);
  if (!points) return;
  const number = points.place.get(item.item);
  focus = number ?? null;
  if (number === undefined) {
    $("map-hint").textContent = `${item.title || item.item} is not among the ${count(points.items.length)} most popular items.`;
    return;
  }
  const scale = Math.max(camera.scale, 6 * points.fit);
  camera = { x: points.x[number], y: points.y[number], scale };
  draw();
  canvas.focus();
}

const dark = () => getComputedStyle(document.documentElement).colorScheme === "dark"
  || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
const color = (genre, theme) => genre < 0 || genre >= COLORS[theme].length ? OTHER[theme] : COLORS[theme][genre];

function drawLegend() {
  const theme = dark() ? "dark" : "light";
  const shown = points.genres.slice(0, COLORS.light.length);
  const rest = points.genres.map((_, genre) => genre).slice(shown.length);
  const groups = [...shown.map((name, genre) => [name, [genre]]), ...(rest.length ? [["Others", rest]] : [])];
  $("legend").replaceChildren(...groups.map(([name, genres]) => h("button.chip", {
    type: "button", "aria-pressed": String(chosen.has(genres[0])),
    onclick: (event) => {
      const on = !chosen.has(genres[0]);
      for (const genre of genres) if (on) chosen.add(genre); else chosen.delete(genre);
      event.currentTarget.setAttribute("aria-pressed", String(on));
      draw();
    },
  }, h("span.swatch", { "aria-hidden": "true", style: { background: color(genres[0], theme) } }), name)));
}

/** Draw again in the colours of another theme. */
export function recolor() {
  if (!points) return;
  drawLegend();
  draw();
}

const size = () => ({ width: canvas.clientWidth, height: canvas.clientHeight });

/** The rectangle that holds all points. */
function extent({ x, y }) {
  let [left, right, top, bottom] = [FULL, 0, FULL, 0];
  for (let i = 0; i < x.length; i++) {
    left = Math.min(left, x[i]);
    right = Math.max(right, x[i]);
    top = Math.min(top, y[i]);
    bottom = Math.max(bottom, y[i]);
  }
  return { left, right, top, bottom };
}

function whole() {
  const { left, right, top, bottom } = points;
  camera = { x: (left + right) / 2, y: (top + bottom) / 2, scale: points.fit };
  draw();
}

function resize() {
  const { width, height } = size();
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const { left, right, top, bottom } = points;
  points.fit = 0.94 * Math.min(width / Math.max(1, right - left), height / Math.max(1, bottom - top));
  if (camera.scale) draw();
  else whole();
}

function zoom(factor, atX = size().width / 2, atY = size().height / 2) {
  if (!points) return;
  const scale = Math.min(Math.max(camera.scale * factor, 0.5 * points.fit), 400 * points.fit);
  const { width, height } = size();
  const shift = 1 / camera.scale - 1 / scale; // the place under the pointer stays there
  camera = { x: camera.x + (atX - width / 2) * shift, y: camera.y + (atY - height / 2) * shift, scale };
  draw();
}

function move(dx, dy) {
  camera = { ...camera, x: camera.x - dx / camera.scale, y: camera.y - dy / camera.scale };
  draw();
}

function draw() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(paint);
  middle();
}

function paint() {
  if (!points) return;
  const { width, height } = size();
  const ratio = devicePixelRatio || 1;
  const theme = dark() ? "dark" : "light";
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const offsetX = width / 2 - camera.x * camera.scale;
  const offsetY = height / 2 - camera.y * camera.scale;
  const small = Math.min(1, Math.max(0.5, width / 900));
  const diameter = (points.x.length > 20_000 ? 1.6 : 3.8) * small * Math.sqrt(camera.scale / points.fit);
  dots(theme, ratio, Math.min(10, Math.max(1.2, diameter)), offsetX, offsetY);
  const ink = theme === "dark" ? "#fff" : "#16202a";
  ring(marks.history, 4 + 2 * small, null, ink, offsetX, offsetY);
  ring(marks.answers, 3 + 2 * small, theme === "dark" ? "#5fb7d4" : "#1f6f8b", ink, offsetX, offsetY);
  if (focus !== null) ring([points.items[focus]], 10, null, ink, offsetX, offsetY);
}

/** Every point as a dot of `size` pixels, written into the picture itself: 100,000 calls of the canvas take too long. */
function dots(theme, ratio, size, offsetX, offsetY) {
  const [across, down] = [canvas.width, canvas.height];
  const picture = context.createImageData(across, down);
  const pixels = new Uint32Array(picture.data.buffer);
  const colors = [-1, ...points.genres.keys()].map((genre) => pixel(color(genre, theme), chosen.size && !chosen.has(genre) ? 24 : 225));
  const edge = Math.max(1, Math.round(size * ratio));
  const disc = discOf(edge).map(([dx, dy]) => dy * across + dx);
  const scale = camera.scale * ratio;
  const { x, y, genre, order } = points;
  for (const number of order) {
    const left = Math.round(x[number] * scale + offsetX * ratio);
    const top = Math.round(y[number] * scale + offsetY * ratio);
    if (left < edge || top < edge || left >= across - edge || top >= down - edge) continue;
    const shade = colors[genre[number] + 1];
    const middle = top * across + left;
    for (let i = 0; i < disc.length; i++) pixels[middle + disc[i]] = shade;
  }
  context.putImageData(picture, 0, 0);
}

/** The pixels of a disc of a diameter, around its middle. */
function discOf(diameter) {
  const middle = (diameter - 1) / 2;
  const all = Array.from({ length: diameter ** 2 }, (_, place) => [place % diameter, Math.floor(place / diameter)]);
  return all.filter(([dx, dy]) => diameter < 3 || Math.hypot(dx - middle, dy - middle) <= diameter / 2)
    .map(([dx, dy]) => [dx - Math.round(middle), dy - Math.round(middle)]);
}

/** "#rrggbb" and an opacity from 0 to 255 as a pixel of a picture. */
function pixel(hex, alpha) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  return ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function ring(items, radius, fill, stroke, offsetX, offsetY) {
  for (const item of items) {
    const number = points.place.get(item);
    if (number === undefined) continue;
    context.beginPath();
    context.arc(points.x[number] * camera.scale + offsetX, points.y[number] * camera.scale + offsetY, radius, 0, 2 * Math.PI);
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
    context.lineWidth = 1.5;
    context.strokeStyle = stroke;
    context.stroke();
  }
}

/** The points nearest to a place of the canvas, nearest first: `[number, pixels]`. */
function nearest(atX, atY, most) {
  const { width, height } = size();
  const worldX = camera.x + (atX - width / 2) / camera.scale;
  const worldY = camera.y + (atY - height / 2) / camera.scale;
  const best = [];
  for (let i = 0; i < points.x.length; i++) {
    if (chosen.size && !chosen.has(points.genre[i])) continue;
    const distance = (points.x[i] - worldX) ** 2 + (points.y[i] - worldY) ** 2;
    if (best.length === most && distance >= best[most - 1][1]) continue;
    let place = best.length;
    while (place && best[place - 1][1] > distance) place--;
    best.splice(place, 0, [i, distance]);
    best.length = Math.min(best.length, most);
  }
  return best.map(([number, distance]) => [number, Math.sqrt(distance) * camera.scale]);
}

const middle = debounced(async () => {
  if (!points || canvas.closest("[hidden]")) return;
  const { width, height } = size();
  const near = nearest(width / 2, height / 2, MIDDLE).map(([number]) => points.items[number]);
  const found = await Promise.all(near.map((id) => api.item(id, loaded).catch(() => ({ item: id }))));
  $("middle").replaceChildren(...found.map((item) => h("li", {},
    h("button.title", { type: "button", onclick: () => void openItem(item.item) }, String(item.title || item.item)),
    h("small", {}, (item.genres ?? []).join(", ")))));
}, 250);

function keyed(event) {
  const step = 60;
  const does = {
    ArrowLeft: () => move(step, 0), ArrowRight: () => move(-step, 0), ArrowUp: () => move(0, step), ArrowDown: () => move(0, -step),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: whole,
    Enter: () => {
      const [found] = nearest(size().width / 2, size().height / 2, 1);
      if (found) void openItem(points.items[found[0]]);
    },
  }[event.key];
  if (!does || !points || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  does();
}

function startPointer() {
  const down = new Map(); // pointers that are down, by id
  let far = 0;
  canvas.addEventListener("pointerdown", (event) => {
    down.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
    far = 0;
    $("map-tip").hidden = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!points) return;
    const before = down.get(event.pointerId);
    if (!before) return hover(event);
    const [other] = [...down.values()].filter(({ pointerId }) => pointerId !== event.pointerId);
    const dx = event.offsetX - before.offsetX;
    const dy = event.offsetY - before.offsetY;
    if (other) { // two fingers: zoom about the one that rests
      const span = (one) => Math.hypot(one.offsetX - other.offsetX, one.offsetY - other.offsetY);
      zoom(span(event) / Math.max(1, span(before)), other.offsetX, other.offsetY);
    }
    far += Math.abs(dx) + Math.abs(dy);
    if (!other) move(dx, dy);
    down.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => {
    const alone = down.size === 1;
    if (!down.delete(event.pointerId) || !points) return;
    const [found] = end === "pointerup" && alone && far < 6 ? nearest(event.offsetX, event.offsetY, 1) : [];
    if (found && found[1] < NEAR) void openItem(points.items[found[0]]);
  });
  canvas.addEventListener("pointerleave", () => { $("map-tip").hidden = true; });
}

const hover = debounced(async (event) => {
  const tip = $("map-tip");
  if (!points) return;
  const [found] = nearest(event.offsetX, event.offsetY, 1);
  tip.hidden = true;
  if (!found || found[1] > NEAR) return;
  const item = await api.item(points.items[found[0]], loaded).catch(() => null);
  if (!item) return;
  tip.replaceChildren(h("strong", {}, String(item.title || item.item)), h("small", {}, (item.genres ?? []).join(", ")));
  tip.style.left = `${Math.min(event.offsetX + 14, size().width - 180)}px`;
  tip.style.top = `${event.offsetY + 14}px`;
  tip.hidden = false;
}, 60);
