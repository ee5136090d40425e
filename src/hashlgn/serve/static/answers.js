// Answers as they are drawn: a column for each model, with reasons and with what filters left out.
import { bar, h, percent, plural } from "./dom.js";
import { Problem } from "./api.js";

const MOST = 100; // answers to a threshold that are drawn
const REASONS = 3;

/** A column while nothing is known yet. */
export const skeleton = () => h("section.card.column.waiting", { "aria-hidden": "true" },
  ...Array.from({ length: 6 }, () => h("div.ghost")));

/** What the filters took from the answer that would stand without them: `{item, title, rank, filter}`. */
export function differences(answer, unfiltered, { deny, filterSeen, filters }, past) {
  if (answer instanceof Problem || unfiltered instanceof Problem) return [];
  const kept = new Set(answer.items.map(({ item }) => item));
  const seen = new Set(past.map(({ item }) => item));
  const hidden = new Set(deny.map(({ item }) => item));
  return unfiltered.items.map((item, place) => ({ ...item, rank: place + 1 })).filter(({ item }) => !kept.has(item))
    .map((item) => ({
      ...item,
      filter: hidden.has(item.item) ? "hidden by you" : filterSeen && seen.has(item.item) ? "in the history" : filters ? `not ${filters}` : null,
    })).filter(({ filter }) => filter);
}

/** One model's answer. */
export function answerColumn(answer, { titles, actions, took, ask, other, left }) {
  if (answer instanceof Problem) {
    return h("section.card.column", {}, h("p.refused", {}, answer.message));
  }
  const { items, source, model } = answer;
  const elsewhere = other && !(other instanceof Problem) ? new Map(other.items.map(({ item }, place) => [item, place + 1])) : null;
  const most = Math.max(...items.map((item) => item.probability ?? item.score), 1e-9);
  const head = h("div.column-head", {},
    h("h2", {}, model),
    h("p.hint", {}, source === "popular" ? h("span.badge", {}, "popular") : null,
      answer.reason ? ` ${answer.reason[0].toUpperCase()}${answer.reason.slice(1)}. ` : null,
      `${plural(items.length, "answer")} in ${took.toFixed(0)} ms`));
  const rows = items.slice(0, MOST).map((item, place) => answerRow(item, place + 1, { titles, actions, most, elsewhere, popular: source === "popular" }));
  const plain = items.some(({ why }) => why?.length) ? "" : ".unexplained";
  return h("section.card.column", { "aria-label": `Recommendations of ${model}` }, head,
    items.length ? h(`div.names${plain}`, { "aria-hidden": "true" }, h("span", {}, ""), h("span", {}, "Item"),
      h("span.number", {}, source === "popular" ? "Users" : items[0].probability == null ? "Score" : "Probability"),
      items[0].why?.length ? h("span", {}, "Why: share of the score") : null) : null,
    items.length ? h(`ol.answers-list${plain}`, {}, rows) : h("p.none", {}, ask.mode === "threshold"
      ? `Nothing has a probability above ${ask.threshold}%. Lower the slider.` : "Nothing is left to recommend."),
    items.length > MOST ? h("p.hint", {}, `The first ${MOST} of ${plural(items.length, "answer")}.`) : null,
    leftOut(left));
}

function answerRow(item, rank, { titles, actions, most, elsewhere, popular }) {
  const title = String(item.title || item.item);
  const chance = item.probability ?? null;
  const beside = elsewhere?.get(item.item);
  return h("li", {},
    h("span.rank", { "aria-hidden": "true" }, rank),
    h("div.what", {},
      h("button.title", { type: "button", onclick: () => actions.open(item.item) }, title),
      h("small", {}, (item.genres ?? []).join(", "),
        elsewhere && beside !== rank ? h("span.beside", {}, beside ? `no. ${beside} in the other` : "only here") : null)),
    h("div.chance", { title: popular ? "Users who have it" : `Score ${item.score.toFixed(4)}` },
      h("span.number", {}, popular ? item.score.toLocaleString("en-GB") : chance === null ? item.score.toFixed(3) : percent(chance),
        h("span.sr", {}, popular ? " users" : chance === null ? " score" : " probability")),
      bar((chance ?? item.score) / most)),
    item.why?.length ? reasonList(item, titles) : null,
    h("div.actions", {},
      h("button.quiet", { type: "button", onclick: () => actions.add(item), "aria-label": `Add ${title} to the history` }, "Add"),
      h("button.quiet", { type: "button", onclick: () => actions.hide(item), "aria-label": `Hide ${title}` }, "Hide")));
}

/** The items of the history that count most, as parts of the score. */
function reasonList(item, titles) {
  const parts = item.why.slice(0, REASONS).map(({ item: reason, share, title }) => [reason, share / item.score, title]);
  return h("ul.why", { "aria-label": "Why" }, parts.map(([reason, share, title]) =>
    h("li", { "data-item": reason },
      h("span.reason-title", {}, titles.get(reason) ?? title ?? String(reason)), bar(share), h("span.number", {}, percent(share)))));
}

function leftOut(left) {
  if (!left.length) return null;
  return h("details.left", {}, h("summary", {}, `${plural(left.length, "item")} left out by filters`),
    h("ul", {}, left.map((item) => h("li", {}, h("span", {}, String(item.title || item.item)),
      h("small", {}, `would be no. ${item.rank}: ${item.filter}`)))));
}
