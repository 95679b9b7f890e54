import { h, frame, watch, update, slider, choice, tabular, readout, figures, grouped, range } from "./kit.js";

const KEPT = 400, PER_SECOND = 6; // an oscillation of two steps then flashes three times a second, and no more
const STATE = ["top_k", "skew", "gamma", "alpha", "seed", "n_experts", "n_tokens", "steps", "bias", "moved", "history"];

// ---- the formulas of router.py, bit for bit; a test compares the two

const mix = x => {
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return (x ^ (x >>> 15)) >>> 0;
};

/** Nearly normal numbers with mean 0 and variance 1: (T, E). */
export function noise({ steps, n_tokens: T, n_experts: E, seed }) {
  const first = 2 * T * E * steps, key = Math.imul(0x9e3779b9, seed);
  const word = n => mix(mix(n >>> 0) + key | 0);
  const halves = w => (w >>> 16) + (w & 65535);
  const one = n => (halves(word(n)) + halves(word(n + 1)) - 131070) / 65536 * 1.7320508075688772;
  return range(0, T - 1).map(token => range(0, E - 1).map(i => one(first + 2 * (token * E + i))));
}

/** e^x in four operations, whose bits are everywhere the same; Math.exp's are not. */
export function exp(x) {
  const y = x / 64;
  let e = 1;
  for (let n = 12; n > 0; n--) e = 1 + y / n * e;
  for (let i = 0; i < 6; i++) e = e * e;
  return e;
}

const add = (a, b) => a + b;
const total = values => values.reduce(add);
const best = values => values.reduce((at, value, i) => value > values[at] ? i : at, 0); // the first of equals
const column = (rows, i) => rows.map(row => row[i]);
const over = (rows, E) => range(0, E - 1).map(i => total(column(rows, i)) / rows.length);

function scores(s, moved) {
  const E = s.n_experts, centre = moved.map((by, i) => s.skew * (E - 1 - 2 * i) / (E - 1) + by);
  return noise(s).map(row => row.map((x, i) => 1 / (1 + exp(-(centre[i] + x)))));
}

/** Affinities (T, E), the K chosen experts of each token, and the tokens of each expert. */
export function route(s) {
  const score = scores(s, s.moved), load = s.bias.map(() => 0);
  const expert = score.map(row => {
    const biased = row.map((x, i) => x + s.bias[i]), chosen = [];
    for (let k = 0; k < s.top_k; k++) {
      chosen.push(best(biased));
      biased[chosen[k]] = -Infinity;
    }
    chosen.forEach(i => { load[i]++; });
    return chosen;
  });
  return { score, expert, load };
}

const maxViolation = load => {
  const mean = total(load) / load.length;
  return (Math.max(...load) - mean) / mean;
};

/** Of the auxiliary loss sum f P by what it moves: (E). */
export function gradient({ score, load }) {
  const mean = total(load) / load.length, f = load.map(n => n / mean);
  return over(score.map(row => {
    const S = total(row), r = total(row.map((s, i) => f[i] * s)) / S;
    return row.map((s, i) => s * (1 - s) / S * (f[i] - r));
  }), f.length);
}

/** The traits that a step changes. */
export function advance(s) {
  const routed = route(s), { load } = routed, mean = total(load) / load.length, slope = gradient(routed);
  return {
    bias: s.bias.map((b, i) => b + s.gamma * Math.sign(mean - load[i])),
    moved: s.moved.map((by, i) => by - s.alpha * slope[i]),
    history: [...s.history, maxViolation(load)].slice(-KEPT),
    steps: s.steps + 1,
  };
}

/** What is shown of this step's batch. */
export function measures(s) {
  const { score, expert, load } = route(s), before = scores(s, s.moved.map(() => 0)), E = s.n_experts, T = s.n_tokens;
  const first = score.map(best), was = before.map(best);
  const share = test => first.filter((_, token) => test(token)).length / T;
  return {
    load, affinity: over(score, E), start: over(before, E), max_violation: maxViolation(load),
    elsewhere: share(token => !expert[token].includes(first[token])), changed: share(token => first[token] !== was[token]),
  };
}

// ---- drawing: fields of 1000 by 1000, whatever their size

const signed = (x, digits) => x.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace("-", "");
const up = y => (1000 * (1 - y)).toFixed(1);
const bars = (from, to) => to.map((y, i) => {
  const left = 1000 * (i + 0.14) / to.length, right = 1000 * (i + 0.86) / to.length;
  return `M${left} ${up(from)}H${right}V${up(y)}H${left}Z`;
}).join("");
const marks = at => at.map((y, i) => `M${1000 * i / at.length} ${up(y)}H${1000 * (i + 1) / at.length}`).join("");
const nice = x => [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].find(step => step >= x) ?? x;

/** A field with a label above and ticks: set(label, paths by class, ticks of y and of x as [place, words]). */
function field(kind, classes) {
  const label = h("p.xp-note"), paths = classes.map(name => h(`path.ro-${name}`)), ticks = h("div");
  const svg = h("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none" }, ...paths);
  const set = (words, ds, ys, xs) => {
    label.textContent = words;
    ds.forEach((d, i) => paths[i].setAttribute("d", d));
    ticks.replaceChildren(...ys.map(([y, word]) => h("span.ro-y", { style: `top:${100 * (1 - y)}%` }, word)),
                          ...xs.map(([x, word]) => h("span.ro-x", { style: `left:${100 * x}%` }, word)));
  };
  return { el: h(`div.ro-panel.ro-${kind}`, { "aria-hidden": "true" }, label, h("div.ro-field", {}, svg, ticks)), set };
}

function paintFields({ load, violation, bias, affinity }, s, now) {
  const E = s.n_experts, mean = s.n_tokens * s.top_k / E, curve = [...s.history, now.max_violation];
  const top = Math.max(2, Math.ceil(1 + Math.max(...curve))); // one scale for all that the curve remembers
  const numbers = range(0, E - 1).filter(i => i % 3 === 0).map(i => [(i + 0.5) / E, String(i + 1)]);
  load.set(`Tokens by expert. Line: the mean, ${grouped(mean)}`, [bars(0, now.load.map(n => n / mean / top)), marks([1 / top])],
    [[0, "0"], [1 / top, grouped(mean)], [1, grouped(mean * top)]], numbers);

  const first = s.steps - s.history.length, wide = Math.max(100, 50 * Math.ceil(s.history.length / 50)), height = top - 1;
  const points = curve.map((y, i) => `${(1000 * i / wide).toFixed(1)} ${up(y / height)}`);
  const d = points.length > 1 ? `M${points.join("L")}` : "", last = points[points.length - 1];
  violation.set("MaxVio by step. At 0 all have the same", [marks([0]), d, `M${last}h0`],
    range(0, height, height > 3 ? 2 : 1).map(y => [y / height, String(y)]), [0, 0.5, 1].map(x => [x, grouped(first + x * wide)]));

  const middle = total(s.bias) / E, off = s.bias.map(b => b - middle), reach = nice(Math.max(0.1, ...off.map(Math.abs)));
  bias.set("Bias by expert, less the mean of all", [bars(0.5, off.map(b => 0.5 + b / reach / 2)), marks([0.5])],
    [[0, `−${reach}`], [0.5, "0"], [1, `+${reach}`]], numbers);
  affinity.set("Mean affinity by expert. Lines: unmoved", [bars(0, now.affinity), marks(now.start)],
    [[0, "0"], [0.5, "0.5"], [1, "1"]], numbers);
}

// ---- the piece

function render({ model, el }) {
  const state = () => Object.fromEntries(STATE.map(key => [key, model.get(key)])), presets = model.get("presets");
  const zeros = () => range(1, model.get("n_experts")).map(() => 0);
  const fresh = () => ({ bias: zeros(), moved: zeros(), history: [], steps: 0 });
  const ways = choice(model, {
    label: "Start again, balanced by", watching: ["gamma", "alpha"], options: Object.keys(presets).map(name => [name, name.toLowerCase()]),
    get: () => Object.keys(presets).find(name => ["gamma", "alpha"].every(key => presets[name][key] === model.get(key))) ?? null,
    set: name => { pause(); update(model, { ...presets[name], ...fresh() }); },
  });
  const experts = choice(model, { label: "Experts a token, K", watching: ["top_k"], options: [[2, "2"], [4, "4"]],
    get: () => model.get("top_k"), set: top_k => update(model, { top_k }) });
  const sliders = [
    { key: "skew", label: "Skew of the affinities", stops: range(0, 12).map(n => n / 4) },
    { key: "gamma", label: "Bias speed, γ", stops: [0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3], show: x => x === 0.001 ? "0.001 (V3)" : grouped(x) },
    { key: "alpha", label: "Auxiliary loss, α", stops: [0, 0.1, 0.3, 1, 3, 10] },
  ].map(spec => slider(model, spec));

  let timer = null;
  const take = n => {
    let s = state();
    for (let i = 0; i < n; i++) s = { ...s, ...advance(s) };
    const { bias, moved, history, steps } = s;
    update(model, { bias, moved, history, steps });
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    run.textContent = "Run";
  };
  const start = () => {
    timer = setInterval(() => { if (el.isConnected && !document.hidden) take(1); else pause(); }, 1000 / PER_SECOND);
    run.textContent = "Pause";
  };
  const button = (words, onclick) => h("button.ro-button", { type: "button", onclick }, words);
  const run = button("Run", () => { if (timer === null) start(); else pause(); });
  run.classList.add("ro-run"); // who wants no motion has "100 steps"
  const buttons = h("div.ro-buttons", { role: "group", "aria-label": "Steps" }, button("1 step", () => { pause(); take(1); }),
    run, button("100 steps", () => { pause(); take(100); }), button("Start again", () => { pause(); update(model, fresh()); }));

  const fields = { load: field("load", ["fill", "line"]), violation: field("violation", ["line", "curve", "dot"]),
                   bias: field("bias", ["ink", "line"]), affinity: field("affinity", ["pale", "line"]) };
  const cells = range(1, model.get("n_experts")).map(() => range(1, 3).map(() => h("td")));
  const caption = h("caption");
  const table = tabular(caption, ["Expert", "Tokens", "Mean affinity", "Bias"],
    cells.map((row, i) => h("tr", {}, h("th", { scope: "row" }, String(i + 1)), ...row)));
  const line = readout();

  const paint = () => {
    const s = state(), now = measures(s), at = best(now.load), percent = share => `${figures(100 * share)}\u00a0%`;
    const taken = `${grouped(s.steps)} ${s.steps === 1 ? "step" : "steps"}`;
    paintFields(fields, s, now);
    cells.forEach((row, i) => [grouped(now.load[i]), now.affinity[i].toFixed(3), signed(s.bias[i], 3)]
      .forEach((words, j) => { row[j].textContent = words; }));
    caption.textContent = `${grouped(s.n_tokens)} tokens, ${s.top_k} experts each, after ${taken}`;
    const mean = grouped(s.n_tokens * s.top_k / s.n_experts);
    line.say(`After ${taken}: MaxVio ${figures(now.max_violation)}. Expert ${at + 1} has the most, ${grouped(now.load[at])} tokens, where the mean is `
      + `${mean}. Sent elsewhere than their first choice by affinity: ${percent(now.elsewhere)} of the tokens. First choice changed by the `
      + `auxiliary loss: ${percent(now.changed)}.`);
  };
  let isDue = false;
  const later = () => { // a step changes four traits: one picture
    if (isDue) return;
    isDue = true;
    queueMicrotask(() => { isDue = false; paint(); });
  };

  frame(el, "How do all experts get equally much to do?",
    h("div.xp-controls", {}, h("div.xp-row.ro-row", {}, ways.el, experts.el), h("div.xp-grid", {}, ...sliders.map(one => one.el)), buttons),
    h("div.ro-fields", {}, fields.load.el, fields.violation.el, fields.bias.el, fields.affinity.el), ...line.els,
    h("details.ro-numbers", {}, h("summary", {}, "Each expert in numbers"), table));
  paint();
  const stops = [ways, experts, ...sliders, line].map(part => part.stop);
  stops.push(watch(model, STATE, later), pause);
  return () => stops.forEach(stop => stop());
}

export default { render };
