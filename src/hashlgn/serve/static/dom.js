// Elements and numbers as text.

/** An element: `h("p.hint", {id: "x", onclick: f}, "text", child)`. Texts are never read as HTML. */
export function h(what, props = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** A number with thousands apart. */
export const count = (value) => Number(value).toLocaleString("en-GB");

/** A share as a percentage. */
export function percent(value, digits) {
  const size = Math.abs(value);
  const places = digits ?? (size >= 0.1 || size === 0 ? 0 : 1);
  return `${(100 * value).toFixed(places).replace("-", "−")}%`;
}

/** A bar of a share of a whole; the text beside it says the number. */
export function bar(share) {
  const width = Math.max(0, Math.min(1, Math.abs(share)));
  return h("span.bar", { "aria-hidden": "true", class: share < 0 ? "bar less" : "bar" },
    h("span", { style: { width: `${100 * width}%` } }));
}

/** "1 item", "2 items". */
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** `call` once nothing was asked for `wait` milliseconds. */
export function debounced(call, wait) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...values), wait);
  };
}

/** Draw a place anew; where the focus was on one of its buttons, it goes to the button that stands there now. */
export function redrawn(place, ...children) {
  const before = [...place.querySelectorAll("button")].indexOf(document.activeElement);
  place.replaceChildren(...children);
  const buttons = place.querySelectorAll("button");
  if (before >= 0) buttons[Math.min(before, buttons.length - 1)]?.focus();
}
