import { h, frame, watch, update, choice, tabular, bar, readout, range, uid } from "./kit.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const SHOWN = 4;
const LEVELS = [0.04, 0.1, 0.25, 0.5]; // of the small maps, from pale to full
const STATE = ["text", "layer", "head", "query"];

// ---- the formulas of attention_pattern.py; a test compares the two

const weight = letter => LETTERS.indexOf(letter) / (LETTERS.length - 1);

/** The weights of a query, for the tokens up to itself. */
export const rowOf = ({ texts, text, layer, head, query: q }) =>
  [...texts[text].weights[layer][head].slice(q * (q + 1) / 2, (q + 1) * (q + 2) / 2)].map(weight);

/** What a query looks at most: [[place, weight], ...]. */
export const seen = state => rowOf(state).map((w, s) => [s, w]).sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, SHOWN);

export const shown = token => `“${token.replaceAll("\n", "⏎").replaceAll(" ", "·")}”`;
export const percent = w => `${Math.floor(100 * w + 0.5)} %`;

// ---- the text, token by token: one Tab stop, arrows inside

function words(model, get) {
  const el = h("div.xp-words", { role: "listbox", "aria-label": "Text. Choose the token that looks" });
  let options = [], drawn = null;
  const go = (to, withFocus) => {
    const query = Math.max(0, Math.min(to, options.length - 1));
    update(model, { query });
    if (withFocus) options[query].focus();
  };
  const above = (from, sign) => { // the nearest token on the next line of the page
    const here = options[from].getBoundingClientRect();
    const others = options.map((one, i) => [i, one.getBoundingClientRect()]).filter(([, box]) => sign * (box.top - here.top) > here.height / 2);
    const line = others.map(([, box]) => sign * box.top).reduce((a, b) => Math.min(a, b), Infinity);
    const near = others.filter(([, box]) => sign * box.top < line + here.height / 2);
    return near.length ? near.reduce((a, b) => Math.abs(b[1].left - here.left) < Math.abs(a[1].left - here.left) ? b : a)[0] : from;
  };
  el.addEventListener("keydown", event => {
    const at = model.get("query");
    const to = { ArrowRight: () => at + 1, ArrowLeft: () => at - 1, Home: () => 0, End: () => options.length - 1,
                 ArrowDown: () => above(at, 1), ArrowUp: () => above(at, -1) }[event.key];
    if (!to) return;
    event.preventDefault();
    go(to(), true);
  });
  const build = tokens => {
    options = tokens.map((token, i) => h("span.xp-word", { role: "option", onclick: () => go(i, true), onpointerenter: event => {
      if (event.pointerType === "mouse" && !el.contains(document.activeElement)) go(i, false);
    } }, token.replace(/\n[\s\S]*/, "⏎")));
    el.replaceChildren(...tokens.flatMap((token, i) => [options[i], ...(token.includes("\n") ? [token.slice(token.indexOf("\n"))] : [])]));
  };
  const paint = () => {
    const s = get(), { tokens } = s.texts[s.text], row = rowOf(s);
    if (drawn !== tokens) build(tokens);
    drawn = tokens;
    options.forEach((option, i) => {
      const w = row[i] ?? 0, isHere = i === s.query;
      option.style.setProperty("--w", w.toFixed(3));
      option.classList.toggle("xp-here", isHere);
      option.classList.toggle("xp-later", i > s.query);
      option.tabIndex = isHere ? 0 : -1;
      option.setAttribute("aria-selected", String(isHere));
      option.setAttribute("aria-label", `${shown(tokens[i])}, place ${i}${i > s.query ? "" : `, weight ${percent(w)}`}`);
    });
  };
  return { el, paint };
}

// ---- the heads of a layer, each as a small map: a row a query, a column a source

function mapOf(line, T) {
  const paths = LEVELS.map(() => "");
  for (let t = 0, i = 0; t < T; t++) {
    for (let s = 0; s <= t; s++, i++) {
      const level = LEVELS.findLastIndex(least => weight(line[i]) >= least);
      if (level >= 0) paths[level] += `M${s} ${t}h1v1h-1z`;
    }
  }
  return h("svg.xp-map", { viewBox: `0 0 ${T} ${T}`, "aria-hidden": "true" },
    h("path.xp-edge", { d: `M0 0V${T}H${T}z` }), ...paths.map((d, i) => h(`path.xp-level${i}`, { d })));
}

function heads(model, get) {
  const name = uid(), grid = h("div.xp-maps");
  const el = h("fieldset.xp-heads", {}, h("legend", {}, "Head"), grid);
  let drawn = "", inputs = [];
  const paint = () => {
    const s = get(), { tokens, weights } = s.texts[s.text], key = `${s.text} ${s.layer}`;
    if (drawn !== key) {
      const hadFocus = inputs.includes(document.activeElement);
      inputs = weights[s.layer].map((_, i) => h("input", { type: "radio", name, "aria-label": `Head ${i}`, onchange: () => update(model, { head: i }) }));
      grid.replaceChildren(...inputs.map((input, i) =>
        h("label.xp-one", {}, input, h("span", {}, mapOf(weights[s.layer][i], tokens.length), h("b", { "aria-hidden": "true" }, String(i))))));
      if (hadFocus) inputs[s.head].focus();
      drawn = key;
    }
    inputs.forEach((input, i) => { input.checked = i === s.head; });
  };
  return { el, paint };
}

function render({ model, el }) {
  const get = () => Object.fromEntries([...STATE, "texts"].map(key => [key, model.get(key)]));
  const texts = model.get("texts");
  const oneOf = (key, label, options, also = () => ({})) => choice(model, { label, options, watching: [key], get: () => model.get(key),
    set: value => update(model, { [key]: value, ...also(value) }) });
  const text = oneOf("text", "Text", texts.map((one, i) => [i, one.name]),
    i => ({ query: Math.min(model.get("query"), texts[i].tokens.length - 1) }));
  const layer = oneOf("layer", "Layer", range(0, texts[0].weights.length - 1).map(i => [i, String(i)]));
  const field = words(model, get), maps = heads(model, get);

  const caption = h("caption"), note = h("p.xp-note"), line = readout();
  const rows = range(1, SHOWN).map(() => {
    const name = h("th", { scope: "row" }), cells = [h("td"), h("td")], drawn = bar("mha", { columns: 3 });
    return { name, cells, drawn, els: [h("tr", {}, name, ...cells), drawn.row] };
  });
  const table = tabular(caption, ["Token", "Place", "Weight"], rows.flatMap(row => row.els));

  const paint = () => {
    const s = get(), { tokens } = s.texts[s.text], most = seen(s).filter(([, w]) => w);
    field.paint();
    maps.paint();
    rows.forEach(({ name, cells, drawn, els }, i) => {
      els.forEach(one => { one.hidden = i >= most.length; });
      if (i >= most.length) return;
      const [place, w] = most[i];
      [name.textContent, cells[0].textContent, cells[1].textContent] = [shown(tokens[place]), String(place), percent(w)];
      drawn.set(w);
    });
    const from = `Layer ${s.layer}, head ${s.head} looks from token ${s.query}, ${shown(tokens[s.query])}, at`;
    caption.textContent = from;
    note.textContent = model.get("notes")[`${s.layer} ${s.head}`] ?? "";
    line.say(`${from} ${most.slice(0, 2).map(([place, w]) => `${shown(tokens[place])}, ${percent(w)}`).join(", and ")}.`);
  };

  frame(el, "Where does a head look?",
    h("div.xp-controls.xp-row", {}, text.el, layer.el), maps.el, note,
    h("p.xp-note.xp-keys", {}, "Choose the token that looks: point at it, or Tab to the text and use the arrow keys. What it looks at is marked."),
    field.el, table, ...line.els);
  paint();
  const stops = [text.stop, layer.stop, line.stop, watch(model, [...STATE, "texts", "notes"], paint)];
  return () => stops.forEach(stop => stop());
}

export default { render };
