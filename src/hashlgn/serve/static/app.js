// The page: views, theme, key, and what is wrong when the service does not answer.
import * as api from "./api.js";
import { $ } from "./dom.js";
import { itemActions } from "./item.js";
import { startLive, stopLive } from "./live.js";
import { recolor, showMap, showOnMap, startMap } from "./map.js";
import { addToGuest, drawControls, offerModels, offerUsers, onMap, refresh, startRecommend } from "./recommend.js";
import { address, state, view, writeAddress } from "./state.js";

const AGAIN = 3000; // milliseconds between looks for a service that is away
const THEMES = ["system", "light", "dark"];
let wrong = null; // the problem that is shown
let again = null;
let loading = false;
let nameItems;

function startTheme() {
  const show = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $("theme").setAttribute("aria-label", `Theme: ${theme}`);
    $("theme").title = `Theme: ${theme}`;
    recolor();
  };
  const stored = localStorage.getItem("hashlgn-theme");
  show(THEMES.includes(stored) ? stored : "system");
  $("theme").addEventListener("click", () => {
    const theme = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % THEMES.length];
    localStorage.setItem("hashlgn-theme", theme);
    show(theme);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolor);
}

/** Say what is wrong with the whole service; what concerns one request stands where its answer would. */
function reported(problem) {
  if (problem === null) {
    $("status").dataset.state = "good";
    $("problem").hidden = true;
    const back = wrong !== null;
    wrong = null;
    if (back && !loading) void load();
    return;
  }
  const needsKey = problem.status === 401 || problem.status === 403;
  if (!needsKey && problem.status > 0 && problem.status < 500) return;
  wrong = problem;
  $("status").dataset.state = "bad";
  $("status-text").textContent = needsKey ? "Locked" : "Away";
  const [title, text] = needsKey
    ? [problem.status === 403 || api.hasKey() ? "This key does not open it" : "This service asks for a key", problem.message]
    : problem.status === 0 ? ["The service is away", `Nothing answers at ${location.host}. Is hashlgn serve running? The page looks again by itself.`]
      : [problem.status === 503 ? "The service is busy" : "The service failed", problem.message];
  $("problem-title").textContent = title;
  $("problem-text").textContent = text;
  $("key-form").hidden = !needsKey;
  $("retry").hidden = needsKey;
  $("problem").hidden = false;
  if (!needsKey) {
    again ??= setTimeout(() => { again = null; void load(); }, AGAIN);
  }
}

/** All that comes from the service, anew. */
async function load() {
  loading = true;
  try {
    const models = await api.models();
    offerModels(models);
    const active = models.find((model) => model.active);
    $("status-text").textContent = active?.version ?? "No model";
    void offerUsers();
    await nameItems?.();
    nameItems = null;
    drawControls();
    await refresh();
    if (view() !== "recommend") await show();
  } catch {
    // reported above
  } finally {
    loading = false;
  }
}

async function show() {
  const name = view();
  for (const section of document.querySelectorAll(".view")) section.hidden = section.id !== `view-${name}`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = { recommend: "HashLGN", map: "Map · HashLGN", live: "Live · HashLGN" }[name];
  if (name === "live") startLive();
  else stopLive();
  if (name === "recommend") writeAddress();
  if (name === "map") await showMap(state.modelA, onMap());
}

api.onAnswer(reported);
startTheme();
startMap();
itemActions({ add: (item) => { location.hash = "#recommend"; addToGuest(item); }, map: showOnMap }, () => state.modelA);
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey($("key").value);
  $("key").value = "";
  void load();
});
$("retry").addEventListener("click", () => void load());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view it is
  $("main").focus();
});
addEventListener("hashchange", () => {
  if (view() === "recommend" && location.hash.includes("?") && location.hash !== address()) location.reload(); // another's view
  else void show();
});
nameItems = startRecommend();
void show();
await load();
