import { h, frame, watch, update, slider, choice, tabular, bar, readout, withUnit, figures, grouped, range, powers, COUNTS } from "./kit.js";

const PARTS = { embedding: "Embedding", attention: "Attention", scores: "Scores and sums", ffn: "Feed-forward", norms: "Norms", head: "Head" };
const SHAPE = ["n_layers", "d_model", "d_ff", "sharing", "vocab_size", "is_tied"];

// ---- the formulas of model_shape.py; a test compares the two

const projections = s => 2 * s.d_model ** 2 + 2 * s.d_model * Math.floor(s.d_model / s.sharing);

/** Parameters by part. */
export const parameters = s => ({
  embedding: s.vocab_size * s.d_model, attention: s.n_layers * projections(s), scores: 0, ffn: 3 * s.n_layers * s.d_model * s.d_ff,
  norms: (2 * s.n_layers + 1) * s.d_model, head: s.is_tied ? 0 : s.vocab_size * s.d_model,
});

/** FLOPs of one token's forward pass by part, the mean over a causal text. */
export const flops = s => ({
  embedding: 0, attention: 2 * s.n_layers * projections(s), scores: 2 * s.n_layers * s.d_model * (s.context + 1),
  ffn: 6 * s.n_layers * s.d_model * s.d_ff, norms: 0, head: 2 * s.vocab_size * s.d_model,
});

const sum = values => Object.values(values).reduce((a, b) => a + b, 0);

/** The feed-forward width with which the parameters come closest to the budget. */
export const heldDff = s => {
  const n = parameters(s), perUnit = 3 * s.n_layers * s.d_model;
  return Math.max(1, Math.floor((2 * (s.budget - sum(n) + n.ffn) + perUnit) / (2 * perUnit)));
};

// ---- the picture

function render({ model, el }) {
  const state = () => Object.fromEntries([...SHAPE, "context", "is_held", "budget"].map(key => [key, model.get(key)]));
  const presets = model.get("presets");
  const current = () => Object.keys(presets).find(name => SHAPE.every(key => presets[name][key] === model.get(key))) ?? null;
  const models = choice(model, {
    label: "Shape", watching: SHAPE, get: current, options: Object.keys(presets).map(name => [name, name]),
    set: name => update(model, { ...presets[name], is_held: false }),
  });
  const widths = [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384];
  const sliders = [
    { key: "n_layers", label: "Layers", stops: [...range(1, 16), 20, 24, 28, 32, 40, 48, 64, 80, 96, 126] },
    { key: "d_model", label: "Width, D", stops: widths },
    { key: "d_ff", label: "Feed-forward width", stops: [...range(16, 512, 16), ...range(640, 2048, 128), ...range(3072, 16384, 1024), 32768, 53248] },
    { key: "vocab_size", label: "Vocabulary, V", stops: [...powers(8, 16), 128_000] },
    { key: "context", label: "Tokens of the text", stops: powers(5, 17) },
  ].map(spec => slider(model, spec));
  const yes = (key, label, words) => choice(model, {
    label, watching: [key], get: () => model.get(key), options: words, set: value => update(model, { [key]: value }),
  });
  const tied = yes("is_tied", "Head", [[true, "is the embedding"], [false, "has its own matrix"]]);
  const held = yes("is_held", "Feed-forward width", [[false, "as it is set"], [true, "what the budget leaves"]]);

  const caption = h("caption");
  const rows = Object.entries(PARTS).map(([part, words]) => {
    const cells = ["n", "share", "work", "share"].map(() => h("td"));
    const lines = [bar(`ms-${part}`, { columns: 5 }), bar(`ms-${part}.xp-ms-work`, { columns: 5 })];
    lines[0].row.classList.add("xp-ms-upper");
    return { part, cells, lines, els: [h("tr", {}, h("th", { scope: "row" }, words), ...cells), ...lines.map(line => line.row)] };
  });
  const totals = ["n", "share", "work", "share"].map(() => h("td"));
  const table = tabular(caption, ["Part", "Parameters", "Share", "FLOPs a token", "Share"],
    [...rows.flatMap(row => row.els), h("tr.xp-ms-total", {}, h("th", { scope: "row" }, "Together"), ...totals)]);
  const line = readout();

  const paint = () => {
    const s = state(), n = parameters(s), work = flops(s), all = [sum(n), sum(work)];
    const most = Math.max(...Object.values(n).map(x => x / all[0]), ...Object.values(work).map(x => x / all[1]));
    for (const { part, cells, lines } of rows) {
      const shares = [n[part] / all[0], work[part] / all[1]];
      [withUnit(n[part], COUNTS), `${figures(100 * shares[0])} %`, withUnit(work[part], COUNTS), `${figures(100 * shares[1])} %`]
        .forEach((words, i) => { cells[i].textContent = words; });
      lines.forEach((one, i) => {
        one.set(shares[i] / most);
        one.row.classList.toggle("xp-ms-none", shares[i] === 0);
      });
    }
    [withUnit(all[0], COUNTS), "100 %", withUnit(all[1], COUNTS), "100 %"].forEach((words, i) => { totals[i].textContent = words; });
    caption.textContent = `${s.n_layers === 1 ? "One layer" : `${s.n_layers} layers`} of width ${grouped(s.d_model)}, feed-forward `
      + `${grouped(s.d_ff)}. Upper line: share of the parameters. Lower, dashed: share of the work on a token.`;
    const ratio = all[0] / s.budget;
    const beside = Math.abs(ratio - 1) < 0.005 ? "the yardstick's budget, to half a percent"
      : ratio > 1 ? `${figures(ratio)} times the yardstick's budget` : `${figures(100 * ratio)} % of the yardstick's budget`;
    const room = s.is_held && s.d_ff === 1 ? " There is no room left for a feed-forward part." : "";
    line.say(`${withUnit(all[0], COUNTS)} parameters: ${beside}. ${withUnit(all[1], COUNTS)} FLOPs a token, `
      + `${figures(all[1] / all[0])} for each parameter.${room}`);
  };
  const hold = () => {
    const s = state(), wanted = heldDff(s);
    if (s.is_held && s.d_ff !== wanted) update(model, { d_ff: wanted });
    else paint();
  };

  frame(el, "Where do the parameters go, and where the work?",
    h("div.xp-controls", {}, models.el, h("div.xp-grid", {}, ...sliders.map(one => one.el)), h("div.xp-row.xp-ms-row", {}, held.el, tied.el)),
    table, ...line.els);
  hold();
  const stops = [models, ...sliders, tied, held, line].map(part => part.stop);
  stops.push(watch(model, [...SHAPE, "context", "is_held", "budget"], hold));
  return () => stops.forEach(stop => stop());
}

export default { render };
