// What somebody chose, kept in the address, so that a view can be sent to somebody else.

export const state = {
  who: "guest", user: "", guest: [], deny: [], mode: "k", k: 10, threshold: 25, filterSeen: true, why: true, filters: "",
  modelA: "", modelB: "",
};

/** The view that the address names: `recommend`, `map` or `live`. */
export function view() {
  const name = location.hash.slice(1).split("?")[0];
  return ["map", "live"].includes(name) ? name : "recommend";
}

/** Read the state from the address; ids of items are text until the service has told them. */
export function readAddress() {
  const said = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const within = (name, low, high) => {
    const value = Math.round(Number(said.get(name)));
    if (said.has(name) && value >= low && value <= high) state[name] = value;
  };
  within("k", 1, 50);
  within("threshold", 1, 90);
  if (said.get("mode") === "threshold") state.mode = "threshold";
  if (said.get("seen") === "shown") state.filterSeen = false;
  state.filters = said.get("only") ?? "";
  state.modelA = said.get("a") ?? "";
  state.modelB = said.get("b") ?? "";
  if (said.has("user")) {
    state.who = "user";
    state.user = said.get("user");
  }
  return { guest: said.getAll("guest"), deny: said.getAll("hide") };
}

/** The address of what the state says. */
export function address() {
  const said = new URLSearchParams();
  if (state.who === "user") said.set("user", state.user);
  else for (const { item } of state.guest) said.append("guest", item);
  for (const { item } of state.deny) said.append("hide", item);
  if (state.mode === "threshold") said.set("mode", "threshold");
  if (state.mode === "threshold") said.set("threshold", state.threshold);
  else if (state.k !== 10) said.set("k", state.k);
  if (!state.filterSeen) said.set("seen", "shown");
  if (state.filters) said.set("only", state.filters);
  if (state.modelA) said.set("a", state.modelA);
  if (state.modelB) said.set("b", state.modelB);
  const text = said.toString();
  return text ? `#recommend?${text}` : "#recommend";
}

export function writeAddress() {
  if (view() === "recommend") window.history.replaceState(null, "", address());
}
