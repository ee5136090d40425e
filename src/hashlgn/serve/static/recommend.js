// The view "Recommend": who asks, what they have, what they are answered, and why.
import * as api from "./api.js";
import { $, debounced, h, plural, redrawn } from "./dom.js";
import { answerColumn, differences, skeleton } from "./answers.js";
import { openItem } from "./item.js";
import { titleSearch } from "./search.js";
import { readAddress, state, writeAddress } from "./state.js";

const SHORT = 12; // items of a long history that are shown at first

let past = []; // the history that is shown
let pastError = null;
let pastKnown = false; // whether the service has answered
let reasons = new Map(); // item of the history → number of answers that it is a reason for
let shown = []; // what the columns show
let whole = false;
let running;

/** Items of the history, and of the answers, for the map. */
export const onMap = () => ({ history: past.map(({ item }) => item), answers: shown.flatMap(({ items }) => items ?? []).map(({ item }) => item) });

/** Make the view ready; gives what names the items of the address, once the service answers. */
export function startRecommend() {
  titleSearch($("guest-search"), {
    id: "search", label: "Add a title to the history", placeholder: "Search titles", chosen: addToGuest,
  });
  const { guest, deny } = readAddress();
  for (const radio of document.querySelectorAll("input[name=who]")) {
    radio.checked = radio.value === state.who;
    radio.addEventListener("change", () => { state.who = radio.value; void refresh(); });
  }
  $("user").value = state.user;
  $("user-form").addEventListener("submit", (event) => {
    event.preventDefault();
    showUser($("user").value.trim());
  });
  $("clear").addEventListener("click", () => { state.guest = []; void refresh(); $("search").focus(); });
  $("as-guest").addEventListener("click", () => {
    state.guest = past.map((item) => ({ ...item }));
    setWho("guest");
  });
  $("history-more").addEventListener("click", () => { whole = !whole; drawHistory(); });
  startControls();
  return async () => { [state.guest, state.deny] = await Promise.all([guest, deny].map(named)); };
}

async function named(ids) {
  const found = await Promise.allSettled(ids.map((id) => api.item(id)));
  return found.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
}

function startControls() {
  const form = $("controls");
  const soon = debounced(() => void ask(), 120);
  form.addEventListener("submit", (event) => event.preventDefault());
  $("k").value = state.k;
  $("threshold").value = state.threshold;
  $("filter-seen").checked = state.filterSeen;
  $("filters").value = state.filters;
  for (const radio of form.querySelectorAll("input[name=mode]")) radio.checked = radio.value === state.mode;
  form.addEventListener("input", () => {
    state.mode = form.querySelector("input[name=mode]:checked").value;
    state.k = Number($("k").value);
    state.threshold = Number($("threshold").value);
    state.filterSeen = $("filter-seen").checked;
    state.why = $("show-why").checked;
    state.filters = $("filters").value.trim();
    state.modelA = $("model-a").value;
    state.modelB = $("model-b").value;
    drawControls();
    soon();
  });
  drawControls();
}

/** The controls as the state has them. */
export function drawControls() {
  $("k-control").hidden = state.mode !== "k";
  $("threshold-control").hidden = state.mode !== "threshold";
  $("k-out").textContent = state.k;
  $("threshold-out").textContent = `${state.threshold}%`;
  $("threshold").setAttribute("aria-valuetext", `${state.threshold} percent`);
  const place = $("hidden-items");
  place.hidden = !state.deny.length;
  place.replaceChildren(h("span.label", {}, "Hidden"), ...state.deny.map((item) =>
    h("button.chip", { type: "button", onclick: () => unhide(item), "aria-label": `Show ${item.title ?? item.item} again` },
      String(item.title || item.item), h("span", { "aria-hidden": "true" }, "×"))));
}

/** Offer the models that are loaded; ask again where the choice had to change. */
export function offerModels(all) {
  const models = all.filter(({ loaded }) => loaded !== false);
  const names = models.map(({ version }) => version);
  const active = models.find((model) => model.active)?.version ?? names[0];
  if (!names.includes(state.modelA)) state.modelA = "";
  if (!names.includes(state.modelB)) state.modelB = "";
  if (state.modelA === active) state.modelA = ""; // the active one needs no name
  const options = (first, others, chosen) => [["", first], ...others.map((name) => [name, name])].map(([value, text]) =>
    h("option", { value, selected: value === chosen }, text));
  $("model-a").replaceChildren(...options(active, names.filter((name) => name !== active), state.modelA));
  $("model-b").replaceChildren(...options(names.length > 1 ? "No other" : "No other is loaded", names, state.modelB));
  $("model-b").disabled = names.length < 2;
}

export async function offerUsers() {
  const found = await api.users().catch(() => []);
  $("user-examples").replaceChildren(...(found.length ? ["For example ", ...found.flatMap((user, number) => [
    number ? ", " : "", h("button.link", { type: "button", onclick: () => showUser(String(user)) }, String(user)),
  ])] : []));
}

function showUser(user) {
  state.user = user;
  $("user").value = user;
  setWho("user");
}

function setWho(who) {
  state.who = who;
  for (const radio of document.querySelectorAll("input[name=who]")) radio.checked = radio.value === who;
  void refresh();
}

/** Add an item to the guest's history; a user's is taken over first, and stays as it is. */
export function addToGuest(item) {
  if (state.who === "user") state.guest = past.map((one) => ({ ...one }));
  if (!state.guest.some((one) => one.item === item.item)) state.guest = [...state.guest, item];
  setWho("guest");
}

function removeFromGuest(item) {
  state.guest = state.guest.filter((one) => one.item !== item.item);
  void refresh();
  if (!state.guest.length) $("search").focus();
}

function hide(item) {
  state.deny = [...state.deny.filter((one) => one.item !== item.item), item];
  drawControls();
  void ask();
}

function unhide(item) {
  state.deny = state.deny.filter((one) => one.item !== item.item);
  drawControls();
  void ask();
}

/** History and answers anew. */
export async function refresh() {
  whole = false;
  reasons = new Map();
  pastError = null;
  pastKnown = false;
  $("user-form").hidden = state.who !== "user";
  if (state.who === "guest") past = state.guest;
  else past = [];
  drawHistory();
  if (state.who === "user" && state.user) {
    const user = state.user;
    try {
      const found = (await api.history(user)).items;
      const once = new Map(found.map((item) => [item.item, item])); // an item may have several events
      if (user === state.user && state.who === "user") [past, pastKnown] = [[...once.values()], true];
    } catch (error) {
      pastError = error;
    }
    drawHistory();
  }
  await ask();
}

function drawHistory() {
  const guest = state.who === "guest";
  $("clear").hidden = !guest || !past.length;
  $("as-guest").hidden = guest || !past.length;
  $("guest-search").hidden = !guest;
  $("history-heading").textContent = past.length ? `History · ${past.length}` : "History";
  const hint = {
    guest: past.length ? "" : "Add two or three titles that somebody likes. Nothing of it is stored.",
    user: pastError ? pastError.message : !state.user ? "Name a user to see what they have."
      : pastKnown && !past.length ? "Nothing is known of this user." : "",
  }[state.who];
  $("history-hint").textContent = hint;
  $("history-hint").hidden = !hint;
  const order = guest ? past : [...past].sort((a, b) => (reasons.get(b.item) ?? 0) - (reasons.get(a.item) ?? 0));
  const some = whole ? order : order.slice(0, SHORT);
  redrawn($("history"), ...some.map((item) => historyRow(item, guest)));
  $("history-more").hidden = past.length <= SHORT;
  $("history-more").textContent = whole ? "Show fewer" : `Show all ${past.length}`;
}

function historyRow(item, guest) {
  const title = String(item.title || item.item);
  const counts = reasons.get(item.item) ?? 0;
  const row = h("li", { "data-item": item.item, onmouseenter: () => light(item.item, true), onmouseleave: () => light(item.item, false) },
    h("div.grow", {},
      h("button.title", { type: "button", onclick: () => openItem(item.item) }, title),
      h("small", {}, (item.genres ?? []).join(", "))),
    counts ? h("span.reason", { title: `A main reason of ${plural(counts, "answer")}` }, `${counts}×`,
      h("span.sr", {}, `a main reason of ${plural(counts, "answer")}`)) : null,
    guest ? h("button.remove.quiet", { type: "button", "aria-label": `Remove ${title}`, onclick: () => removeFromGuest(item) }, "×") : null);
  return row;
}

/** Mark the answers that an item of the history is a reason for. */
function light(item, on) {
  for (const why of document.querySelectorAll(".why li")) {
    if (why.dataset.item === String(item)) why.classList.toggle("lit", on);
  }
}

/** "category=a,b available=true" as `{category: ["a", "b"], available: ["true"]}`; what is not whole yet is left out. */
function parsedFilters(text) {
  const pairs = [...text.matchAll(/([^\s=]+)=([^=]*)(?=\s+[^\s=]+=|$)/g)]
    .map(([, name, values]) => [name, values.split(",").map((value) => value.trim()).filter(Boolean)]);
  return Object.fromEntries(pairs.filter(([, values]) => values.length));
}

/** What is asked of one model: with the filters, and without, to show what they left out. */
function requests(model) {
  const whom = state.who === "user" ? { user: state.user } : { history: state.guest.map(({ item }) => item) };
  const size = state.mode === "k" ? { k: state.k } : { threshold: state.threshold / 100, calibrated: true };
  const asked = { ...whom, ...size, ...(model ? { model } : {}) };
  const deny = state.deny.map(({ item }) => item);
  const filters = parsedFilters(state.filters);
  return [{ ...asked, filter_seen: state.filterSeen, explain: state.why, ...(deny.length ? { deny } : {}),
    ...(Object.keys(filters).length ? { filters } : {}) },
    { ...asked, filter_seen: false }];
}

async function ask() {
  writeAddress();
  const place = $("columns");
  if (state.who === "user" && !state.user) return place.replaceChildren();
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const models = [state.modelA, ...(state.modelB ? [state.modelB] : [])];
  if (!place.children.length) place.replaceChildren(...models.map(skeleton));
  place.setAttribute("aria-busy", "true");
  const started = performance.now();
  let found;
  try {
    found = await api.recommendations(models.flatMap(requests), signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    place.removeAttribute("aria-busy");
    place.replaceChildren(); // what was there is no answer to what is asked
    return say(error.message);
  }
  const took = performance.now() - started;
  place.removeAttribute("aria-busy");
  shown = models.map((_, number) => found[2 * number]);
  reasons = new Map();
  for (const { items } of shown.slice(0, 1)) {
    for (const { item } of (items ?? []).flatMap(({ why }) => why ?? [])) reasons.set(item, (reasons.get(item) ?? 0) + 1);
  }
  drawHistory();
  const titles = new Map(past.map((item) => [item.item, String(item.title || item.item)]));
  const actions = { add: addToGuest, hide, open: openItem };
  place.dataset.columns = models.length;
  redrawn(place, ...models.map((_, number) => answerColumn(shown[number], {
    titles, actions, took, ask: state, other: models.length > 1 ? shown[1 - number] : null,
    left: differences(shown[number], found[2 * number + 1], state, past),
  })));
  say(shown.map((answer) => answer.items
    ? `${plural(answer.items.length, "recommendation")} from ${answer.source === "popular" ? "popularity" : answer.model}`
    : answer.message).join("; "));
}

function say(text) {
  $("said").textContent = text;
}
