import { h, frame, watch, update, slider, choice, tabular, readout, figures, withUnit, powers, COUNTS } from "./kit.js";

const KNOBS = ["tokens", "texts", "context", "train_price", "write_price", "memory_price", "bit_price"];
const PARTS = { training: "training", writing: "writing", memory: "memory", score: "its score" };
const WIDEST = 4; // times the least bill: what is dearer is cut

// ---- the formulas of which_rung.py, operation for operation; a test compares the two

const total = values => values.reduce((a, b) => a + b);
export const mean = values => total(values) / values.length;
const cheapest = bills => bills.reduce((at, bill, i) => bill < bills[at] ? i : at, 0);

/** Cents, or dollars from ten. */
export const money = cents => cents < 0 ? (figures(-cents) !== "0" ? `−${money(-cents)}` : "0\u00a0¢")
  : cents >= 1000 ? `$${figures(cents / 100)}` : `${figures(cents)}\u00a0¢`;

/** The four parts of every rung's bill. pick: the figure that counts, of one for each seed. */
export function parts(s, pick = mean) {
  const best = Math.min(...s.rungs.map(rung => mean(rung.bits)));
  return s.rungs.map(rung => {
    const hours = s.tokens * pick(rung.write_ms[s.texts]) / 1000 / 3600;
    const gb = (2 * rung.params[s.texts] + rung.cache_bytes * s.context * s.texts) / 1e9;
    return [pick(rung.train_s) / 3600 * s.train_price, hours * s.write_price, hours * gb * s.memory_price, (pick(rung.bits) - best) * 100 * s.bit_price];
  });
}

export const bills = (s, pick) => parts(s, pick).map(total);

const seedsOf = rung => Math.min(...[rung.bits, rung.train_s, ...Object.values(rung.write_ms)].map(each => each.length));

/** With how many seeds the cheapest rung is cheapest, and how many there are. */
export function seedsWon(s) {
  const first = cheapest(bills(s)), n = Math.min(...s.rungs.map(seedsOf));
  return [Array.from({ length: n }, (_, i) => cheapest(bills(s, each => each[i]))).filter(at => at === first).length, n];
}

/** Below and above which number of tokens another rung is cheapest, and which. */
export function turns(s) {
  const [once, more] = [0, 1e6].map(tokens => bills({ ...s, tokens })), each = more.map((b, i) => (b - once[i]) / 1e6);
  const first = cheapest(bills(s));
  const cross = each.map((price, i) => [(once[i] - once[first]) / (each[first] - price), i]).filter(([, i]) => Math.abs(each[first] - each[i]) > 1e-15);
  const below = cross.filter(([n, i]) => each[i] > each[first] && n > 0), above = cross.filter(([n, i]) => each[i] < each[first] && n > 0);
  const pick = (found, better) => found.length ? found.reduce((a, b) => better(b[0], a[0]) ? b : a) : null;
  return [pick(below, (a, b) => a > b), pick(above, (a, b) => a < b)].map(found => found && [found[0], s.rungs[found[1]].name]);
}

/** For each rung another that is as good or better in everything, and in something better. */
export function beatenBy(s) {
  const sizes = s.rungs.map(rung => [mean(rung.train_s), mean(rung.write_ms[s.texts]), rung.params[s.texts], rung.cache_bytes, mean(rung.bits)]);
  return sizes.map(own => s.rungs.find((_, j) => sizes[j].some((n, k) => n !== own[k]) && sizes[j].every((n, k) => n <= own[k]))?.name ?? "");
}

/** The answer in words. */
export function said(s) {
  const all = bills(s), each = parts(s), names = s.rungs.map(rung => rung.name);
  if (Math.max(...all) - Math.min(...all) < 1e-9) return "At these prices it is all one: every rung costs the same.";
  const first = cheapest(all), [won, n] = seedsWon(s), second = cheapest(all.map((bill, i) => i === first ? Infinity : bill));
  const seeds = won === n ? `in each of ${n} runs` : `but in ${won} of ${n} runs only`;
  const more = Object.values(PARTS).map((words, k) => [each[second][k] - each[first][k], words]);
  const least = Math.max(...more.map(([by]) => Math.abs(by))) / 20; // what is less does not explain much
  const why = more.filter(([by]) => Math.abs(by) >= least).map(([by, words]) => `${money(Math.abs(by))} ${by > 0 ? "more" : "less"} for ${words}`).join(", ");
  const [below, above] = turns(s), turn = ([at, name]) => `${withUnit(at, COUNTS)} tokens to write, ${name} would be cheapest`;
  let end = below ? `Below ${turn(below)}` : above ? `Above ${turn(above)}` : "It stays so however much is written";
  if (below && above) end += `; above ${withUnit(above[0], COUNTS)}, ${above[1]}`;
  return `The cheapest is ${names[first]}, ${money(all[first])}, ${seeds}. Next comes ${names[second]}, ${money(all[second])}${why && `: ${why}`}. ${end}.`;
}

/** Each bill beside the least, in words. */
export function beside(s) {
  const all = bills(s), least = Math.min(...all), first = cheapest(all);
  return all.map((bill, i) => i === first ? "cheapest" : least <= 0 ? "dearer" : bill < 2 * least ? `+${figures(100 * (bill / least - 1))} %`
    : `${figures(bill / least)} times`);
}

/** Below each bar: the parts of its bill, and what else there is to say. */
export function notes(s) {
  const never = beatenBy(s).map(by => by && `never cheapest: ${by} is as good or better in everything`), each = parts(s);
  return s.rungs.map((rung, i) => [Object.keys(PARTS).map((words, k) => `${words} ${money(each[i][k])}`).join(", "), rung.note[s.texts], never[i]].filter(Boolean).join("; "));
}

// ---- the picture

/** A bar in four pieces, for the eye only: its numbers stand above it. */
function pieces() {
  const lines = Object.keys(PARTS).map(part => h(`line.wr-${part}`, { y1: 5, y2: 5 })), end = h("span.wr-end", {}, "›");
  const el = h("div.wr-bar", { "aria-hidden": "true" }, h("svg", { width: "100%", height: 10 }, ...lines), end);
  const set = (values, most) => {
    let from = 0;
    values.forEach((value, k) => {
      const to = Math.min(from + 100 * Math.max(value, 0) / most, 100);
      lines[k].setAttribute("x1", `${from}%`);
      lines[k].setAttribute("x2", `${to}%`);
      lines[k].style.visibility = to - from > 0.05 ? "" : "hidden";
      from = to;
    });
    end.hidden = total(values) <= most * 1.0001;
  };
  return { el, set };
}

/** 0, and 1, 2, 5 of every power of ten between two. */
const prices = (from, to) => {
  const stops = [0];
  for (let power = from; power < to; power++) for (const n of [1, 2, 5]) stops.push(+(n * 10 ** power).toPrecision(1));
  return [...stops, 10 ** to];
};

function render({ model, el }) {
  const state = () => Object.fromEntries([...KNOBS, "rungs"].map(key => [key, model.get(key)]));
  const presets = model.get("presets");
  const current = () => Object.keys(presets).find(name => KNOBS.every(key => presets[name][key] === model.get(key))) ?? null;
  const purposes = choice(model, { label: "What is it for?", watching: KNOBS, get: current, options: Object.keys(presets).map(name => [name, name]),
    set: name => update(model, Object.fromEntries(KNOBS.map(key => [key, presets[name][key]]))) });
  const texts = choice(model, { label: "Texts at once", watching: ["texts"], get: () => model.get("texts"), options: [[1, "one"], [32, "32"]],
    set: value => update(model, { texts: value }) });
  const cents = value => value === 0 ? "nothing" : money(value);
  const volume = [
    { key: "tokens", label: "Tokens to write", stops: [0, ...[3, 4, 5, 6, 7, 8, 9, 10, 11].flatMap(n => [10 ** n, 3 * 10 ** n]), 1e12],
      show: value => value === 0 ? "none" : withUnit(value, COUNTS) },
    { key: "context", label: "Tokens in a text", stops: powers(7, 20) },
  ].map(spec => slider(model, spec));
  const price = [
    { key: "train_price", label: "An hour of training", stops: prices(-1, 4), show: cents },
    { key: "write_price", label: "An hour of writing", stops: prices(-1, 4), show: cents },
    { key: "memory_price", label: "A GB held for an hour", stops: prices(-1, 4), show: cents },
    { key: "bit_price", label: "0.01 bits per byte less", stops: prices(-3, 2), show: cents },
  ].map(spec => slider(model, spec));

  const rows = model.get("rungs").map(rung => {
    const cells = [h("td"), h("td")], note = h("span.xp-note"), bar = pieces();
    const row = h("tr.wr-row", {}, h("th", { scope: "row" }, rung.name), ...cells);
    return { row, cells, note, bar, els: [row, h("tr.xp-bars", {}, h("td", { colspan: 3 }, note, bar.el))] };
  });
  const table = tabular(h("caption", {}, model.get("about")), ["Rung", "Its bill", "Beside the cheapest"], rows.flatMap(row => row.els));
  const key = h("p.xp-note.wr-key", { "aria-hidden": "true" }, ...Object.keys(PARTS).map(part =>
    h("span", {}, h("svg", { width: 26, height: 10 }, h(`line.wr-${part}`, { x1: 0, x2: 26, y1: 5, y2: 5 })), ` ${part}`)), h("span", {}, "› goes on"));
  const line = readout(), story = h("p.xp-note.wr-says");

  const paint = () => {
    story.textContent = presets[current()]?.says ?? "Your own purpose, at your own prices.";
    const s = state(), each = parts(s), all = bills(s), words = beside(s), below = notes(s), first = cheapest(all);
    const most = Math.min(Math.max(...all), WIDEST * Math.min(...all)) || Math.max(...all) || 1;
    rows.forEach(({ row, cells, note, bar }, i) => {
      row.classList.toggle("wr-first", i === first);
      cells[0].textContent = money(all[i]);
      cells[1].textContent = words[i];
      note.textContent = below[i];
      bar.set(each[i], most);
    });
    line.say(said(s));
  };

  frame(el, "Which rung for what?", h("div.xp-controls", {}, purposes.el, story), table, key, ...line.els,
    h("fieldset.xp-controls", {}, h("legend", {}, "How much is written"), h("div.xp-grid", {}, ...volume.map(one => one.el), texts.el)),
    h("fieldset.xp-controls", {}, h("legend", {}, "What you pay, or what it is worth to you"), h("div.xp-grid", {}, ...price.map(one => one.el))));
  paint();
  const stops = [purposes, texts, ...volume, ...price, line].map(part => part.stop);
  stops.push(watch(model, [...KNOBS, "rungs"], paint));
  return () => stops.forEach(stop => stop());
}

export default { render };
