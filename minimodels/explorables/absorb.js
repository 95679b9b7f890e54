import {
  h, frame, watch, update, slider, choice, tabular, bar, readout, withUnit, figures, grouped, range, COUNTS,
} from "./kit.js";

const WAYS = { naive: "Expand the keys", absorbed: "Absorb into the query" };
const SIZES = ["n_heads", "d_head", "d_rope", "d_value", "d_latent"];
const LOAD = ["context", "queries"];
const NUMBERS = ["way", "head", "token", "query", "w_uk", "c_kv"];

// ---- the formulas of absorb.py; a test compares the two

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const columns = rows => rows[0].map((_, i) => rows.map(row => row[i]));

/** What the picture shows of one head: keys (S, Dn), absorbed query (C), and the scores (S) of both ways. */
export function oneHead({ head, query, w_uk, c_kv }) {
  const q = query[head], w = w_uk[head], keys = c_kv.map(c => w.map(row => dot(row, c)));
  const absorbed = columns(w).map(column => dot(q, column));
  return { q, w, keys, absorbed, scores: { naive: keys.map(k => dot(q, k)), absorbed: c_kv.map(c => dot(absorbed, c)) } };
}

/** Multiplications of one layer and step: through W_UK and W_UV, and for scores and sums. */
export function multiplications({ n_heads: H, d_head: Dn, d_rope: Dr, d_value: Dv, d_latent: C, context: S, queries }) {
  const T = Math.min(queries, S);
  return { naive: { through: S * H * C * (Dn + Dv), attend: T * S * H * (Dn + Dr + Dv) },
           absorbed: { through: T * H * C * (Dn + Dv), attend: T * S * H * (C + Dr + C) } };
}

/** The smallest S at which absorbing needs fewer, or null. */
export function paysFrom({ d_head: Dn, d_value: Dv, d_latent: C, queries: T }) {
  const rebuilt = C * (Dn + Dv), gain = rebuilt - T * (2 * C - Dn - Dv);
  return gain > 0 ? Math.max(T, Math.floor(T * rebuilt / gain) + 1) : null;
}

// ---- words and matrices

const signed = n => String(n).replace("-", "−");
const factor = n => n < 0 ? `(${signed(n)})` : String(n);
const vector = values => `(${values.map(signed).join(", ")})`;
const spelled = (a, b) => `${a.map((x, i) => `${factor(x)}·${factor(b[i])}`).join(" + ")} = ${signed(dot(a, b))}`;
const italic = letter => h("i", {}, letter);
const weight = name => [italic("W"), h("sub", {}, name)];
const ABSORBED = "q̃";

/** A matrix of numbers or elements, with its name and size below. here: the column of the chosen token. */
function matrix(rows, name, kind, here = -1) {
  const cell = (value, i) => h(i === here ? "td.xp-here" : "td", {}, typeof value === "number" ? signed(value) : value);
  return h(`table.xp-matrix.xp-of-${kind}`, {},
    h("caption", {}, ...name, h("span.xp-note", {}, ` ${rows.length} × ${rows[0].length}`)),
    h("tbody", {}, ...rows.map(row => h("tr", {}, ...row.map(cell)))));
}

// ---- the picture: one head, a few tokens

function picture(model) {
  const get = () => Object.fromEntries(NUMBERS.map(key => [key, model.get(key)]));
  const oneOf = (key, label, options) => choice(model, { label, options, watching: [key], get: () => model.get(key),
    set: value => update(model, { [key]: value }) });
  const counted = key => range(0, model.get(key).length - 1).map(i => [i, String(i + 1)]);
  const way = oneOf("way", "Multiply first", Object.entries(WAYS));
  const head = oneOf("head", "Head", counted("query")), token = oneOf("token", "Cached token", counted("c_kv"));

  // the query's numbers are the reader's
  const take = (input, i) => {
    const value = Number(input.value), isGood = input.value !== "" && Number.isInteger(value) && Math.abs(value) <= 9;
    input.setAttribute("aria-invalid", String(!isGood));
    if (!isGood) return;
    const query = model.get("query").map(row => [...row]);
    query[model.get("head")][i] = value;
    update(model, { query });
  };
  const inputs = model.get("query")[0].map((_, i) => h("input", { type: "number", min: -9, max: 9, step: 1,
    "aria-label": `Query, number ${i + 1}`, oninput: event => take(event.target, i), onblur: () => paint() }));
  const slots = matrix([inputs], [italic("q")], "query");

  const first = h("div.xp-chain"), then = h("div.xp-chain"), last = h("div.xp-chain");
  const step = (words, chain) => [h("p.xp-note", {}, words), chain];
  const bracket = sign => h("span.xp-paren", { "aria-hidden": "true" }, sign);
  const sums = Object.fromEntries(Object.keys(WAYS).map(key => [key, h("p.xp-sum")]));
  const line = readout();

  const paint = () => {
    const s = get(), at = s.token, isNaive = s.way === "naive";
    const { q, w, keys, absorbed, scores } = oneHead(s);
    const latents = () => matrix(columns(s.c_kv), ["latents ", italic("c")], "mla", at);
    const focused = document.activeElement;
    inputs.forEach((input, i) => {
      if (input === focused) return; // somebody types there
      input.value = q[i];
      input.setAttribute("aria-invalid", "false");
    });
    const w_uk = matrix(w, weight("UK"), "weight");
    first.replaceChildren(...(isNaive ? [slots, bracket("("), w_uk, latents(), bracket(")")]
                                      : [bracket("("), slots, w_uk, bracket(")"), latents()]));
    if (inputs.includes(focused)) focused.focus(); // a moved element loses it
    then.replaceChildren(...(isNaive ? [matrix([q], [italic("q")], "query"), matrix(columns(keys), ["keys"], "key", at)]
                                     : [matrix([absorbed], ["absorbed ", italic(ABSORBED)], "query"), latents()]));
    last.replaceChildren(matrix([scores[s.way]], ["scores"], "score", at));

    const [S, Dn, C] = [keys.length, q.length, absorbed.length];
    const cost = n => h("span.xp-note", {}, `${n} multiplications for the ${S} scores`);
    sums.naive.replaceChildren(h("b", {}, WAYS.naive),
      h("span", {}, `key = ${vector(keys[at])}, `, italic("q"), ` · key = ${spelled(q, keys[at])}`),
      cost(S * Dn * C + S * Dn));
    sums.absorbed.replaceChildren(h("b", {}, WAYS.absorbed),
      h("span", {}, italic(ABSORBED), ` = ${vector(absorbed)}, `, italic(ABSORBED), " · ", italic("c"),
        ` = ${spelled(absorbed, s.c_kv[at])}`),
      cost(Dn * C + S * C));
    for (const key in sums) sums[key].classList.toggle("xp-now", key === s.way);
    line.say(`Cached token ${at + 1} scores ${signed(scores.naive[at])} both ways: only the brackets move.`);
  };

  paint();
  const stops = [way.stop, head.stop, token.stop, line.stop, watch(model, NUMBERS, paint)];
  return {
    els: [h("div.xp-controls.xp-row", {}, way.el, head.el, token.el),
          h("div.xp-steps", {},
            ...step("Multiply the bracket first", first), ...step("which leaves", then), ...step("and gives", last)),
          h("div.xp-sums", {}, sums.naive, sums.absorbed), ...line.els],
    stop: () => stops.forEach(stop => stop()),
  };
}

// ---- the count: a model of real size

function count(model) {
  const presets = model.get("presets");
  const isHere = name => SIZES.every(key => presets[name][key] === model.get(key));
  const sizes = choice(model, { label: "At the size of", watching: SIZES, options: Object.keys(presets).map(name => [name, name]),
    get: () => Object.keys(presets).find(isHere) ?? null, set: name => update(model, presets[name]) });
  const between = [3, 6, 12, 24, 48, 96, 192, 384, 768, 1536, 3072];
  const load = [
    { key: "context", label: "Cached tokens, S", stops: [...range(0, 12).map(n => 2 ** n), ...between].sort((a, b) => a - b) },
    { key: "queries", label: "New tokens, T", stops: range(0, 9).map(n => 2 ** n) },
  ].map(spec => slider(model, spec));

  const caption = h("caption"), line = readout();
  const rows = Object.entries(WAYS).map(([key, words]) => {
    const cells = ["through", "attend", "together"].map(() => h("td")), drawn = bar(key, { columns: 4 });
    return { key, cells, drawn, els: [h("tr", {}, h("th", { scope: "row" }, words), ...cells), drawn.row] };
  });
  const through = h("span", {}, "Through ", ...weight("UK"), ", ", ...weight("UV"));
  const table = tabular(caption, ["One layer", through, "Scores and sums", "Together"], rows.flatMap(row => row.els));

  const paint = () => {
    const s = Object.fromEntries([...SIZES, ...LOAD].map(key => [key, model.get(key)])), T = Math.min(s.queries, s.context);
    const parts = multiplications(s), from = paysFrom(s), total = key => parts[key].through + parts[key].attend;
    const most = Math.max(total("naive"), total("absorbed")), least = Math.min(total("naive"), total("absorbed"));
    for (const { key, cells, drawn } of rows) {
      [parts[key].through, parts[key].attend, total(key)].forEach((n, i) => { cells[i].textContent = withUnit(n, COUNTS); });
      drawn.set(total(key) / most);
    }
    const tokens = T === 1 ? "one new token" : `${grouped(T)} new tokens at once`;
    caption.textContent = `Multiplications for ${tokens} over ${grouped(s.context)} cached: `
      + `H = ${s.n_heads}, Dn = ${s.d_head}, Dr = ${s.d_rope}, Dv = ${s.d_value}, C = ${s.d_latent}`;
    const better = total("absorbed") < total("naive") ? "Absorbing" : "Expanding";
    const now = most === least ? "Both ways need the same." : `${better} needs ${figures(most / least)} times fewer multiplications.`;
    const tail = from === null ? "absorbing never needs fewer, however long the cache."
      : `absorbing needs fewer from ${grouped(from)} cached tokens on.`;
    line.say(`${now} With ${tokens}, ${tail}`);
  };

  paint();
  const stops = [sizes.stop, ...load.map(one => one.stop), line.stop, watch(model, [...SIZES, ...LOAD], paint)];
  return {
    els: [h("div.xp-controls", {}, sizes.el, h("div.xp-grid", {}, ...load.map(one => one.el))), table, ...line.els],
    stop: () => stops.forEach(stop => stop()),
  };
}

function render({ model, el }) {
  const parts = [picture(model), count(model)];
  frame(el, "Only the brackets move", ...parts.flatMap(part => part.els));
  return () => parts.forEach(part => part.stop());
}

export default { render };
