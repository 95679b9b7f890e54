// What every explorable shares. It stands in front of each module, so: no import, and no state outside functions.

/** h("label.wide", { for: id }, "text", child): an element. A property that starts with "on" is a listener. */
export function h(spec, props = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const isDrawing = ["svg", "line", "path"].includes(tag);
  const el = isDrawing ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  if (classes.length) el.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) el.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) el.setAttribute(key, value === true ? "" : value);
  }
  el.append(...children.filter(child => child != null));
  return el;
}

/** An id that no other instance on the page has: a label must not point into a neighbour. */
export const uid = () => "xp" + Math.random().toString(36).slice(2, 10);

/** Put the parts of an explorable into el. The two attributes (JupyterLab 4 and 3) keep the arrow keys for our sliders. */
export function frame(el, title, ...parts) {
  const id = uid();
  el.classList.add("xp");
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  el.setAttribute("data-p-suppress-shortcuts", "true");
  el.addEventListener("keydown", event => { if (!event.ctrlKey && !event.metaKey) event.stopPropagation(); }); // other notebooks
  el.append(h("div.xp-panel", { role: "group", "aria-labelledby": id }, h("p.xp-title", { id }, title), ...parts));
}

/** Listen to several traits; returns the function that stops listening. */
export function watch(model, keys, listener) {
  for (const key of keys) model.on(`change:${key}`, listener);
  return () => keys.forEach(key => model.off(`change:${key}`, listener));
}

/** Set traits together and tell Python once. */
export function update(model, values) {
  for (const [key, value] of Object.entries(values)) model.set(key, value);
  model.save_changes();
}

/** A labelled slider for one trait. stops: the values it offers; Python may set others. show: a value in words. */
export function slider(model, { key, label, stops, show = grouped }) {
  const id = uid();
  const nearest = value => stops.reduce((best, stop, i) => Math.abs(stop - value) < Math.abs(stops[best] - value) ? i : best, 0);
  const out = h("span.xp-value", { "aria-hidden": "true" }); // the slider says it itself, and an <output> would say it again
  const input = h("input", { id, type: "range", min: 0, max: stops.length - 1, step: 1,
    oninput: () => update(model, { [key]: stops[+input.value] }) });
  const paint = () => {
    const value = model.get(key);
    input.value = nearest(value);
    out.textContent = show(value);
    input.setAttribute("aria-valuetext", show(value));
  };
  paint();
  return { el: h("div.xp-slider", {}, h("label", { for: id }, label), out, input), stop: watch(model, [key], paint) };
}

/** One of a few, as radio buttons: options [[value, words], ...]. get: the value now; set: called with the chosen one. */
export function choice(model, { label, options, get, set, watching }) {
  const name = uid();
  const buttons = options.map(([value]) => h("input", { type: "radio", name, onchange: () => set(value) }));
  const paint = () => options.forEach(([value], i) => { buttons[i].checked = value === get(); });
  paint();
  const labels = options.map(([, words], i) => h("label", {}, buttons[i], h("span", { "data-words": words }, words)));
  return { el: h("fieldset.xp-choice", {}, h("legend", {}, label), h("div", {}, ...labels)), stop: watch(model, watching, paint) };
}

/** A table with a caption; cells: rows of elements. */
export const tabular = (caption, head, rows) => h("table.xp-table", {}, caption,
  h("thead", {}, h("tr", {}, ...head.map(words => h("th", { scope: "col" }, words)))), h("tbody", {}, ...rows));

/** A row of a table with a thick line of one kind (its colour and dash stand in the CSS), for the eye only: the number is text. */
export function bar(kind, { columns, note }) {
  const drawing = h("svg", { width: 1600, height: 9 }, h(`line.xp-${kind}`, { x1: 0, x2: 1600, y1: 4.5, y2: 4.5 }));
  const el = h("div.xp-bar", { "aria-hidden": "true" }, drawing);
  return { row: h("tr.xp-bars", { "aria-hidden": note ? null : "true" }, h("td", { colspan: columns }, note, el)),
           set: share => { el.style.width = `${Math.max(100 * share, 0.4)}%`; } };
}

/** A sentence that is seen at once, and spoken when the reader pauses: not once a pixel of a drag. */
export function readout() {
  const seen = h("p.xp-readout"), spoken = h("p.xp-hidden", { role: "status", "aria-live": "polite" });
  let timer, isFirst = true;
  const say = text => {
    seen.textContent = text;
    clearTimeout(timer);
    if (!isFirst) timer = setTimeout(() => { spoken.textContent = text; }, 600);
    isFirst = false;
  };
  return { els: [seen, spoken], say, stop: () => clearTimeout(timer) };
}

/** Three digits, halves up, thousands apart, by the same operations as in base.py: 70.272 -> "70.3". */
export function figures(x) {
  let k = 0;
  while (k < 4 && x * 10 ** k < 100) k++;
  return grouped(Math.floor(x * 10 ** k + 0.5) / 10 ** k);
}

/** Three digits and the decimal unit that fits: withUnit(70272, BYTES) -> "70.3 KB". */
export function withUnit(x, units) {
  let i = 0;
  while (x >= 999.5 && i < units.length - 1) { x /= 1000; i++; }
  return `${figures(x)} ${units[i]}`.trimEnd();
}

export const BYTES = ["B", "KB", "MB", "GB", "TB", "PB"];
export const COUNTS = ["", "thousand", "million", "billion", "trillion"];
export const grouped = n => n.toLocaleString("en-US", { maximumFractionDigits: 4 });
export const range = (from, to, step = 1) => Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);
export const powers = (from, to) => range(from, to).map(n => 2 ** n);
