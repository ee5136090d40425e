// A field that searches titles: a combobox with a list, as the ARIA practices describe it.
import { search } from "./api.js";
import { debounced, h } from "./dom.js";

/** Fill `place` with the field; `chosen(item)` is called with what somebody picks. */
export function titleSearch(place, { id, label, placeholder, chosen }) {
  const list = h("ul.options", { id: `${id}-list`, role: "listbox", "aria-label": "Titles found", hidden: true });
  const input = h("input", {
    id, type: "search", role: "combobox", autocomplete: "off", spellcheck: "false", placeholder,
    "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list",
  });
  const said = h("p.sr", { role: "status" });
  let options = [];
  let active = -1;
  let running;

  const close = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const mark = (number) => {
    active = number;
    [...list.children].forEach((option, place) => option.setAttribute("aria-selected", String(place === number)));
    if (number < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", list.children[number].id);
    list.children[number].scrollIntoView({ block: "nearest" });
  };
  const pick = (number) => {
    const item = options[number];
    input.value = "";
    close();
    chosen(item);
  };
  const show = (items) => {
    options = items;
    list.replaceChildren(...items.map((item, number) =>
      h("li", {
        id: `${id}-${number}`, role: "option", "aria-selected": "false",
        onmousedown: (event) => event.preventDefault(), onclick: () => pick(number),
      }, h("span", {}, item.title || String(item.item)), h("small", {}, (item.genres ?? []).join(", ")))));
    said.textContent = items.length ? `${items.length} titles` : "No title has these words";
    if (!items.length) list.append(h("li.none", {}, "No title has these words."));
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(items.length ? 0 : -1);
  };
  const ask = debounced(async () => {
    const words = input.value.trim();
    running?.abort();
    if (!words) return close();
    running = new AbortController();
    try {
      show(await search(words, running.signal));
    } catch {
      close(); // the page says what is wrong
    }
  }, 120);

  input.addEventListener("input", ask);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return close();
    if (list.hidden || !options.length) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) mark((active + step + options.length) % options.length);
    else if (event.key === "Enter" && active >= 0) pick(active);
    else return;
    event.preventDefault();
  });
  place.append(h("div.search", {}, h("label", { for: id }, label), input, list, said));
  return input;
}
