import { h, frame, watch, update, choice, tabular, bar, readout, grouped, range } from "./kit.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const STEPS = LETTERS.length ** 2 - 1;
const FEW = 5;
const PASSES = ["first", "any"];
const STATE = ["texts", "kinds", "layers", "n_experts", "top_k", "counts", "source", "text", "layer", "expert", "token", "count"];

// ---- the formulas of expert_text.py; a test compares the two

/** The experts of a token with their weights, the largest first: [[expert, weight], ...]. */
export function choices({ texts, text, layers, layer, top_k: K, token }, at = token) {
  const line = texts[text].choices[layers.indexOf(layer)].slice(3 * K * at, 3 * K * (at + 1));
  const n = [...line].map(letter => LETTERS.indexOf(letter));
  return range(0, K - 1).map(k => [n[3 * k], (LETTERS.length * n[3 * k + 1] + n[3 * k + 2]) / STEPS]);
}

/** Of each token, which of its choices the chosen expert is: 0 the first, -1 none. */
export const ranks = s => s.texts[s.text].tokens.map((_, i) => choices(s, i).findIndex(([e]) => e === s.expert));

const sum = numbers => numbers.reduce((a, b) => a + b, 0);
const countsOf = s => s.counts[s.layers.indexOf(s.layer)];

/** A row of the table for each kind that occurs. */
export function numbers(s) {
  const every = countsOf(s)[0].map(sum), number = countsOf(s)[PASSES.indexOf(s.count)];
  const own = sum(number.map(line => line[s.expert] ?? 0));
  const row = (n, kind) => {
    const chance = n / sum(every);
    if (s.expert < 0) {
      const most = Math.max(...number[kind]);
      return { kind, n, share: chance, best: number[kind].indexOf(most), part: most / n };
    }
    const got = number[kind][s.expert], share = own ? got / own : 0;
    return { kind, n: got, share, chance, times: share / chance, is_few: Math.max(got, chance * own) < FEW };
  };
  return every.map((n, kind) => n && row(n, kind)).filter(one => one);
}

export const shown = token => `“${token.replaceAll("\n", "⏎").replaceAll(" ", "·")}”`;
export const percent = w => `${Math.floor(100 * w + 0.5)} %`;
export const times = row => (Math.floor(10 * row.times + 0.5) / 10).toFixed(1) + (row.is_few ? " (few)" : "");

export const head = s => ["Kind", "Tokens", "Share", ...(s.expert >= 0 ? ["By chance", "Times"] : ["Most go to", "Of them"])];
export const cells = s => numbers(s).map(row => [s.kinds[row.kind], grouped(row.n), percent(row.share),
  ...(s.expert >= 0 ? [percent(row.chance), times(row)] : [String(row.best), percent(row.part)])]);

export function sentence(s) {
  const rows = numbers(s), n = sum(countsOf(s)[0].map(sum));
  if (s.expert < 0) return `Layer ${s.layer}, ${grouped(n)} tokens. Choose an expert, and its tokens stand out.`;
  const [what, k] = s.count === "first" ? ["the first choice", 1] : [`among the ${s.top_k} choices`, s.top_k];
  const even = grouped(Math.floor(n * k / s.n_experts + 0.5)), got = grouped(sum(rows.map(row => row.n)));
  const told = `In layer ${s.layer}, expert ${s.expert} is ${what} of ${got} of ${grouped(n)} tokens; an even share is ${even}.`;
  const most = rows.filter(row => !row.is_few).reduce((a, b) => b.times > a.times ? b : a, { times: 0 });
  return most.times > 1 ? `${told} Most above chance: ${s.kinds[most.kind]}, ${times(most)} times (${grouped(most.n)} tokens).` : told;
}

// ---- the text, token by token, each with the number of its expert: one Tab stop, arrows inside

function field(model, get) {
  const el = h("div.xp-words.xp-et-words", { role: "listbox", "aria-label": "Text. Choose a token to see all its experts" });
  let options = [], drawn = null;
  const go = (to, withFocus) => {
    const token = Math.max(0, Math.min(to, options.length - 1));
    update(model, { token });
    if (withFocus) options[token].focus();
  };
  const above = (from, sign) => { // the nearest token on the next line of the page
    const here = options[from].getBoundingClientRect();
    const others = options.map((one, i) => [i, one.getBoundingClientRect()]).filter(([, box]) => sign * (box.top - here.top) > here.height / 2);
    const line = others.map(([, box]) => sign * box.top).reduce((a, b) => Math.min(a, b), Infinity);
    const near = others.filter(([, box]) => sign * box.top < line + here.height / 2);
    return near.length ? near.reduce((a, b) => Math.abs(b[1].left - here.left) < Math.abs(a[1].left - here.left) ? b : a)[0] : from;
  };
  el.addEventListener("keydown", event => {
    const s = get(), at = s.token;
    const to = { ArrowRight: () => at + 1, ArrowLeft: () => at - 1, Home: () => 0, End: () => options.length - 1,
                 ArrowDown: () => above(at, 1), ArrowUp: () => above(at, -1) }[event.key];
    const isPick = event.key === "Enter" || event.key === " ";
    if (!to && !isPick) return;
    event.preventDefault();
    if (to) go(to(), true);
    else toggle(model, choices(s)[0][0]);
  });
  const build = tokens => {
    options = tokens.map((token, i) => h("span.xp-et-word", { role: "option", onclick: () => go(i, true), onpointerenter: event => {
      if (event.pointerType === "mouse" && !el.contains(document.activeElement)) go(i, false);
    } }, h("span", {}, token.replace(/\n[\s\S]*/, "⏎")), h("b")));
    el.replaceChildren(...tokens.flatMap((token, i) => [options[i], ...(token.includes("\n") ? [token.slice(token.indexOf("\n"))] : [])]));
  };
  const paint = () => {
    const s = get(), { tokens, kinds } = s.texts[s.text], rank = ranks(s);
    if (drawn !== tokens) build(tokens);
    drawn = tokens;
    options.forEach((option, i) => {
      const all = choices(s, i), isHere = i === s.token;
      option.lastChild.textContent = String(all[0][0]);
      option.classList.toggle("xp-et-first", rank[i] === 0);
      option.classList.toggle("xp-et-other", rank[i] > 0 && s.count === "any");
      option.classList.toggle("xp-et-rest", s.expert >= 0 && !(rank[i] === 0 || rank[i] > 0 && s.count === "any"));
      option.classList.toggle("xp-here", isHere);
      option.tabIndex = isHere ? 0 : -1;
      option.setAttribute("aria-selected", String(isHere));
      option.setAttribute("aria-label", `${shown(tokens[i])}, ${s.kinds[kinds[i]]}: expert ${all.map(([e, w]) => `${e} ${percent(w)}`).join(", ")}`);
    });
  };
  return { el, paint };
}

const toggle = (model, e) => update(model, { expert: model.get("expert") === e ? -1 : e });

// ---- the choices of one token: each a button that makes its expert stand out

function chosen(model, get) {
  const name = h("p.xp-note"), list = h("ol.xp-et-choices"), el = h("div.xp-et-chosen", {}, name, list);
  let items = [];
  const paint = () => {
    const s = get(), all = choices(s), { tokens, kinds } = s.texts[s.text];
    name.textContent = `Token ${s.token}, ${shown(tokens[s.token])} (${s.kinds[kinds[s.token]]}), goes to`;
    if (items.length !== all.length) {
      items = all.map((_, k) => {
        const words = h("span"), weight = h("b"), line = h("i", { "aria-hidden": "true" });
        return { words, weight, line, button: h("button", { type: "button", onclick: () => toggle(model, choices(get())[k][0]) }, words, " ", weight, line) };
      });
      list.replaceChildren(...items.map(({ button }) => h("li", {}, button)));
    }
    all.forEach(([e, w], k) => {
      [items[k].words.textContent, items[k].weight.textContent] = [`expert ${e}`, percent(w)];
      items[k].line.style.width = `${100 * w}%`;
      items[k].button.setAttribute("aria-pressed", String(e === s.expert));
    });
  };
  return { el, paint };
}

function render({ model, el }) {
  const get = () => Object.fromEntries(STATE.map(key => [key, model.get(key)]));
  const { texts, layers, n_experts: E, top_k: K } = get();
  const oneOf = (key, label, options, also = () => ({})) => choice(model, { label, options, watching: [key], get: () => model.get(key),
    set: value => update(model, { [key]: value, ...also(value) }) });
  const text = oneOf("text", "Text", texts.map((one, i) => [i, one.name]),
    i => ({ token: Math.min(model.get("token"), texts[i].tokens.length - 1) }));
  const layer = oneOf("layer", "Layer", layers.map(i => [i, String(i)]));
  const expert = oneOf("expert", "Expert that stands out", [[-1, "none"], ...range(0, E - 1).map(e => [e, String(e)])]);
  const count = oneOf("count", "Count", [["first", "first choices"], ["any", `all ${K} choices`]]);
  expert.el.classList.add("xp-et-experts");
  const words = field(model, get), token = chosen(model, get), line = readout();

  const caption = h("caption"), heads = range(0, 4).map(() => h("th", { scope: "col" }));
  const rows = model.get("kinds").map(() => {
    const name = h("th", { scope: "row" }), tds = range(0, 3).map(() => h("td")), tick = h("i.xp-et-tick"), drawn = bar("et-share", { columns: 5 });
    drawn.row.firstChild.append(tick);
    return { name, tds, tick, drawn, els: [h("tr", {}, name, ...tds), drawn.row] };
  });
  const table = tabular(caption, [], rows.flatMap(row => row.els));
  table.querySelector("thead tr").append(...heads);

  const key = h("p.xp-note.xp-et-key");
  const paint = () => {
    const s = get(), found = numbers(s), said = cells(s), names = head(s);
    words.paint();
    token.paint();
    heads.forEach((th, i) => { th.textContent = names[i]; });
    rows.forEach(({ name, tds, tick, drawn, els }, i) => {
      els.forEach(one => { one.hidden = i >= found.length; });
      if (i >= found.length) return;
      name.textContent = said[i][0];
      tds.forEach((td, j) => { td.textContent = said[i][j + 1]; });
      drawn.set(found[i].share);
      tick.hidden = s.expert < 0;
      if (s.expert >= 0) tick.style.left = `${100 * found[i].chance}%`;
    });
    table.classList.toggle("xp-et-all", s.expert < 0);
    caption.textContent = (s.expert < 0 ? `All tokens in layer ${s.layer}, by kind` : `What expert ${s.expert} got, by kind; the upright line is chance`)
      + `. Counted: ${s.source}.`;
    key.textContent = s.expert < 0 ? "Under each token: the expert with the largest weight."
      : `Under each token: the expert with the largest weight. On colour, with a full line: first choice ${s.expert}`
        + (s.count === "any" ? `; with a dashed line: ${s.expert} is a later choice.` : ".");
    line.say(sentence(s));
  };

  frame(el, "Which expert gets which token?",
    h("div.xp-controls.xp-row", {}, text.el, layer.el, count.el), expert.el,
    h("p.xp-note.xp-keys", {}, "Point at a token for all its experts, or Tab to the text and use the arrow keys; Enter makes its first expert stand out."),
    words.el, key, token.el, h("div.xp-et-said", {}, ...line.els), table);
  paint();
  const stops = [text.stop, layer.stop, expert.stop, count.stop, line.stop, watch(model, STATE, paint)];
  return () => stops.forEach(stop => stop());
}

export default { render };
