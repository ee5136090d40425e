// One item: its neighbours, and its code drawn as bits.
import * as api from "./api.js";
import { $, bar, h, percent, plural } from "./dom.js";

let actions = { add: () => {}, map: () => {} };
let model = () => "";

/** What the buttons of an item do, and which model is looked at. */
export function itemActions(given, chosen) {
  actions = given;
  model = chosen;
}

export async function openItem(id) {
  const dialog = $("item");
  const close = h("button.quiet.close", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, "×");
  const body = h("div.item-body", {}, h("h2", { id: "item-title" }, "…"));
  dialog.replaceChildren(close, body);
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  if (!dialog.open) dialog.showModal();
  try {
    const version = model();
    const [item, near] = await Promise.all([api.item(id, version), api.similar(id, version)]);
    body.replaceChildren(...drawn(item, near, version));
  } catch (error) {
    body.replaceChildren(h("h2", { id: "item-title" }, String(id)), h("p.refused", { role: "alert" }, error.message));
  }
}

function drawn(item, near, version) {
  const title = String(item.title || item.item);
  const dialog = $("item");
  const code = item.code ? bits(item.code, "Code as an answer") : null;
  return [
    h("h2", { id: "item-title" }, title),
    h("p.hint", {}, [(item.genres ?? []).join(", "), `item ${item.item}`,
      item.users === undefined ? "" : `${plural(item.users, "user")} of the training`].filter(Boolean).join(" · ")),
    h("div.buttons", {},
      h("button.plain", { type: "button", onclick: () => { dialog.close(); actions.add(item); } }, "Add to a guest's history"),
      h("button.plain", { type: "button", onclick: () => { dialog.close(); actions.map(item); } }, "Show on the map")),
    code?.element ?? h("p.hint", {}, "This model keeps items as floats: there are no bits to draw."),
    item.history_code ? bits(item.history_code, "Code in a history").element : null,
    h("h3", {}, "Neighbours"),
    h("p.hint", {}, code ? "By the cosine of their vectors. Point at one to see the bits in which it differs." : "By the cosine of their vectors."),
    h("ol.rows", {}, near.map((other) => neighbour(other, code, version))),
  ];
}

function neighbour(other, code, version) {
  const compare = async () => {
    const { code: its } = await api.item(other.item, version);
    if (its) code?.compare(its, String(other.title || other.item));
  };
  return h("li", { onmouseenter: compare, onmouseleave: () => code?.compare(null) },
    h("button.title", { type: "button", onclick: () => void openItem(other.item), onfocus: compare, onblur: () => code?.compare(null) },
      String(other.title || other.item)),
    bar(other.score), h("span.number", {}, percent(other.score, 0)));
}

/** A code as a drawing: a square per bit, four to a sub-code. `compare` marks where another code differs. */
function bits(code, name) {
  const groups = code.match(/.{1,4}/g);
  const cells = [];
  const grid = h("div.bits", { role: "img", "aria-label": `${name}, ${code.length} bits: ${groups.join(" ")}` },
    groups.map((group) => h("span.subcode", {}, [...group].map((bit) => {
      cells.push(h("i", { class: bit === "1" ? "on" : "" }));
      return cells.at(-1);
    }))));
  const plain = `${code.length} bits: ${groups.length} sub-codes of 4`;
  const note = h("p.hint", { "aria-live": "polite" }, plain);
  const compare = (other, title) => {
    cells.forEach((cell, place) => cell.classList.toggle("differs", other !== null && other[place] !== code[place]));
    const equal = other?.match(/.{1,4}/g).filter((group, place) => group === groups[place]).length;
    note.textContent = other === null ? plain : `${equal} of ${groups.length} sub-codes are those of ${title}`;
  };
  return { element: h("section.code", {}, h("h3", {}, name), grid, note), compare };
}
