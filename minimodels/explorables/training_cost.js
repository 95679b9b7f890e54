import {
  h, frame, watch, update, slider, choice, tabular, bar, readout, withUnit, figures, grouped, COUNTS,
} from "./kit.js";

const RUN = ["total_billion", "active_percent", "scores_gflop", "tokens_trillion", "peak_tflops", "utilisation_percent", "n_gpus"];
const FLOPS = ["FLOP", "KFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"];

// ---- the formula of training_cost.py, operation for operation; a test compares the two

/** What one run comes to. */
export function computed(p, price) {
  const perToken = 6 * p.total_billion * 1e9 * p.active_percent / 100 + p.scores_gflop * 1e9;
  const flops = perToken * p.tokens_trillion * 1e12;
  const hours = flops / (p.peak_tflops * 1e12 * p.utilisation_percent / 100) / 3600;
  return { flops_per_token: perToken, petaflop_s_days: flops / (1e15 * 86400), gpu_hours: hours, days: hours / p.n_gpus / 24,
           dollars: hours * price };
}

// ---- the picture

/** 1, 1.5, 2, 3, 5, 7 of every power of ten between two. */
const decades = (from, to) => {
  const stops = [];
  for (let power = from; power < to; power++) for (const n of [1, 1.5, 2, 3, 5, 7]) stops.push(+(n * 10 ** power).toPrecision(3));
  return [...stops, 10 ** to];
};

function render({ model, el }) {
  const state = () => Object.fromEntries(RUN.map(key => [key, model.get(key)]));
  const presets = model.get("presets"), chips = model.get("chips");
  const current = () => Object.keys(presets).find(name => RUN.every(key => presets[name][key] === model.get(key))) ?? null;

  const runs = choice(model, {
    label: "Start from", watching: RUN, get: current, options: Object.keys(presets).map(name => [name, name]),
    set: name => update(model, Object.fromEntries(RUN.map(key => [key, presets[name][key]]))),
  });
  const billions = value => withUnit(value * 1e9, COUNTS);
  const percent = value => `${figures(value)} %`;
  const sliders = [
    { key: "total_billion", label: "Parameters", stops: decades(-3, 4), show: billions },
    { key: "active_percent", label: "Of them active", stops: [0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100], show: percent },
    { key: "tokens_trillion", label: "Tokens", stops: decades(-3, 2), show: value => withUnit(value * 1e12, COUNTS) },
    { key: "scores_gflop", label: "Attention’s scores", stops: [0, 1, 2, 5, 10, 20, 30, 50, 100, 200, 500, 1000],
      show: value => withUnit(value * 1e9, FLOPS) },
    { key: "peak_tflops", label: "Peak", stops: [1, 10, 50, 125, 312, 989, 2000, 5000],
      show: value => `${grouped(value)} TFLOPS${chips[value] ? ` (${chips[value]})` : ""}` },
    { key: "utilisation_percent", label: "Utilisation", stops: [1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 90, 100], show: percent },
    { key: "n_gpus", label: "GPUs", stops: [1, 8, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 100000] },
    { key: "price_usd", label: "Price of a GPU-hour", stops: [0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 7, 10], show: value => `$${figures(value)}` },
  ].map(spec => slider(model, spec));

  const caption = h("caption");
  const rows = ["", ...Object.keys(presets)].map(name => {
    const note = h("span.xp-note"), line = bar(name ? "known-run" : "own-run", { columns: 5, note }), cells = [0, 1, 2, 3].map(() => h("td"));
    const head = h("th", { scope: "row" }, name || h("b", {}, "This run"));
    return { name, note, line, cells, els: [h("tr", {}, head, ...cells), line.row] };
  });
  const table = tabular(caption, ["Run", "FLOPs a token", "GPU-hours", "Days", "Rent"], rows.flatMap(row => row.els));
  const line = readout();

  const paint = () => {
    const price = model.get("price_usd"), name = current(), all = rows.map(row => computed(row.name ? presets[row.name] : state(), price));
    const most = Math.max(...all.map(run => run.dollars));
    rows.forEach((row, i) => {
      const r = all[i], words = [withUnit(r.flops_per_token, FLOPS), withUnit(r.gpu_hours, COUNTS), figures(r.days), `$${withUnit(r.dollars, COUNTS)}`];
      words.forEach((text, k) => { row.cells[k].textContent = text; });
      row.line.set(r.dollars / most);
      row.note.textContent = row.name ? `published: ${presets[row.name].published}` : `${figures(r.petaflop_s_days)} petaflop/s-days`;
    });
    caption.textContent = `By arithmetic, every GPU-hour at $${figures(price)}; an hour of another chip buys other work`;
    const s = state(), own = all[0];
    line.say(`${name ?? "Your own run"}: ${billions(s.total_billion * s.active_percent / 100)} parameters at work, ${withUnit(own.flops_per_token, FLOPS)} a token, `
      + `${withUnit(own.gpu_hours, COUNTS)} GPU-hours: ${figures(own.days)} days on ${grouped(s.n_gpus)} GPUs, $${withUnit(own.dollars, COUNTS)}.`);
  };

  frame(el, "What does a run cost?",
    h("div.xp-controls", {}, runs.el, h("div.xp-grid", {}, ...sliders.map(one => one.el))), table, ...line.els);
  paint();
  const stops = [runs, ...sliders, line].map(part => part.stop);
  stops.push(watch(model, [...RUN, "price_usd"], paint));
  return () => stops.forEach(stop => stop());
}

export default { render };
