// What the page asks of the service, and what is wrong when it does not answer.

const STORED_KEY = "hashlgn-key";

/** What went wrong: `status` is that of HTTP, 0 where nothing answered; `code` is the service's name for it. */
export class Problem extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let key = sessionStorage.getItem(STORED_KEY) ?? "";
let report = () => {};

/** `call(problem)` is told of every request: null where it was answered. */
export function onAnswer(call) {
  report = call;
}

export function useKey(value) {
  key = value.trim();
  if (key) sessionStorage.setItem(STORED_KEY, key);
  else sessionStorage.removeItem(STORED_KEY);
}

export const hasKey = () => key !== "";

async function answer(path, { body, signal, text = false } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      body: body === undefined ? undefined : JSON.stringify(body),
      headers, signal, cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw told(new Problem(0, "away", "The service does not answer."));
  }
  if (response.ok) {
    const found = text ? await response.text() : await response.json();
    report(null);
    return found;
  }
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // an answer of something between the page and the service
  }
  throw told(new Problem(response.status, said.code ?? "", said.message ?? `The service answered ${response.status}.`));
}

function told(problem) {
  report(problem);
  return problem;
}

const query = (values) => {
  const set = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return set.length ? `?${new URLSearchParams(set)}` : "";
};
const part = (id) => encodeURIComponent(String(id));

/** One answer per request; a request that is refused is a Problem in its place. */
export async function recommendations(requests, signal) {
  const { results } = await answer("v1/recommendations", { body: { requests }, signal });
  return results.map((result) => result.error
    ? new Problem(result.status, result.error.code, result.error.message) : result);
}

export const history = (user) => answer(`v1/users/${part(user)}/history`);
export const users = () => answer("v1/users?k=5").then((found) => found.users);
export const search = (title, signal) =>
  answer(`v1/items${query({ title, k: 8 })}`, { signal }).then((found) => found.items);
export const similar = (item, model) =>
  answer(`v1/items/${part(item)}/similar${query({ k: 12, model })}`).then((found) => found.items);
export const models = () => answer("v1/models").then((found) => found.models);
export const map = (model) => answer(`v1/map${query({ model })}`);
export const metrics = () => answer("metrics", { text: true });

const known = new Map();

/** An item with its codes; each is asked for once. */
export function item(id, model) {
  const name = `${model ?? ""} ${id}`;
  if (!known.has(name)) {
    const found = answer(`v1/items/${part(id)}${query({ model })}`);
    found.catch(() => known.delete(name));
    known.set(name, found);
  }
  return known.get(name);
}
