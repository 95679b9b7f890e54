import {
  h, frame, watch, update, slider, choice, tabular, bar, readout, withUnit, figures, grouped, range, powers, BYTES,
} from "./kit.js";

const SCHEMES = { MHA: "every head its own keys and values", GQA: "heads share keys and values in groups",
                  MQA: "all heads share one key and one value", MLA: "one latent and one rotary key for all heads" };
const SHAPE = ["n_layers", "n_heads", "n_kv_heads", "d_head", "d_latent", "d_rope"];
const LOAD = ["context", "batch", "bits", "memory_bytes"];

// ---- the formulas of kv_cache.py; a test compares the two

/** Numbers that one layer keeps for one token. */
export const valuesPerLayer = ({ n_heads, n_kv_heads, d_head, d_latent, d_rope }) =>
  ({ MHA: 2 * n_heads * d_head, GQA: 2 * Math.min(n_kv_heads, n_heads) * d_head, MQA: 2 * d_head, MLA: d_latent + d_rope });

const ofEach = (values, f) => Object.fromEntries(Object.entries(values).map(([scheme, n]) => [scheme, f(n)]));

/** Bytes that all layers keep for one token, whole ones. */
export const bytesPerToken = s => ofEach(valuesPerLayer(s), n => Math.ceil(n * s.n_layers * s.bits / 8));

/** How many sequences of this length fit into the memory, with nothing else there. */
export const sequencesThatFit = s => ofEach(bytesPerToken(s), n => Math.floor(s.memory_bytes / (n * s.context)));

// ---- the picture

const FORMULAS = {
  MHA: s => `2 · H · Dh = 2 · ${s.n_heads} · ${s.d_head}`,
  GQA: s => `2 · G · Dh = 2 · ${Math.min(s.n_kv_heads, s.n_heads)} · ${s.d_head}`,
  MQA: s => `2 · Dh = 2 · ${s.d_head}`,
  MLA: s => `C + Dr = ${s.d_latent} + ${s.d_rope}`,
};

function render({ model, el }) {
  const state = () => Object.fromEntries([...SHAPE, ...LOAD].map(key => [key, model.get(key)]));
  const presets = model.get("presets");
  const current = () => Object.keys(presets).find(name => SHAPE.every(key => presets[name][key] === model.get(key))) ?? null;
  const label = name => presets[name].label ?? name;

  const models = choice(model, {
    label: "Model", watching: SHAPE, get: current, options: Object.keys(presets).map(name => [name, label(name)]),
    set: name => update(model, Object.fromEntries(SHAPE.map(key => [key, presets[name][key]]))),
  });
  const bits = choice(model, {
    label: "Bits a value", watching: ["bits"], get: () => model.get("bits"),
    options: [[32, "32"], [16, "16"], [8, "8"], [6, "6 (V2)"]], set: value => update(model, { bits: value }),
  });
  const load = [
    { key: "context", label: "Tokens a sequence", stops: powers(9, 20) },
    { key: "batch", label: "Sequences at once", stops: powers(0, 10) },
  ].map(spec => slider(model, spec));
  const shape = [
    { key: "n_layers", label: "Layers", stops: range(1, 160) },
    { key: "n_heads", label: "Heads, H", stops: [1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128] },
    { key: "d_head", label: "Head width, Dh", stops: [8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256] },
    { key: "n_kv_heads", label: "GQA: groups, G", stops: powers(0, 7) },
    { key: "d_latent", label: "MLA: latent, C", stops: range(32, 1024, 32) },
    { key: "d_rope", label: "MLA: rotary, Dr", stops: range(0, 128, 8) },
  ].map(spec => slider(model, spec));

  const caption = h("caption"), fitHead = h("span");
  const rows = Object.entries(SCHEMES).map(([scheme, words]) => {
    const role = h("span.xp-role"), note = h("span.xp-note"), line = bar(scheme.toLowerCase(), { columns: 5, note });
    const cells = ["a token", "in all", "of MHA", "fit"].map(() => h("td"));
    const name = h("th", { scope: "row" }, h("b", {}, scheme), " ", role);
    return { scheme, words, role, note, line, cells, els: [h("tr", {}, name, ...cells), line.row] };
  });
  const table = tabular(caption, ["Scheme", "A token", "In all", "Of MHA", fitHead], rows.flatMap(row => row.els));
  const line = readout();

  const paint = () => {
    const s = state(), name = current(), values = valuesPerLayer(s), each = bytesPerToken(s), fit = sequencesThatFit(s);
    const most = Math.max(...Object.values(each)), uses = name && presets[name].uses, memory = withUnit(s.memory_bytes, BYTES);
    const total = n => withUnit(n * s.context * s.batch, BYTES), share = n => `${figures(100 * n / each.MHA)} %`;
    const sequences = s.batch === 1 ? "one sequence" : `${grouped(s.batch)} sequences`;
    for (const { scheme, words, role, note, line, cells } of rows) {
      const n = each[scheme];
      [withUnit(n, BYTES), total(n), share(n), grouped(fit[scheme])].forEach((words, i) => { cells[i].textContent = words; });
      line.set(n / most);
      role.textContent = !name ? "" : scheme === uses ? `in ${label(name)}` : "hypothetical";
      role.classList.toggle("xp-used", scheme === uses);
      const ratios = scheme === "MLA" && name && presets[name].ratios;
      note.textContent = `${words}${ratios ? `, ${ratios}` : ""}: ${FORMULAS[scheme](s)} = ${grouped(values[scheme])} values a layer`;
    }
    fitHead.textContent = `Fit into ${memory}`;
    caption.textContent = `KV cache of ${sequences} of ${grouped(s.context)} tokens, ${s.bits} bits a value, ${s.n_layers} layers`;
    const scheme = uses || "MLA", n = each[scheme];
    const m = fit[scheme], fitting = m > 1 ? `${grouped(m)} such sequences fit` : `${m ? "One" : "Not one"} such sequence fits`;
    line.say(`${name ? label(name) : "Your own"} with ${scheme}: ${withUnit(n, BYTES)} a token, ${total(n)} for ${sequences}, `
      + `${share(n)} of MHA. ${fitting} into ${memory} with nothing else there.`);
  };

  frame(el, "How big is the cache?",
    h("div.xp-controls", {}, models.el, h("div.xp-grid", {}, ...load.map(one => one.el), bits.el)),
    table, ...line.els,
    h("fieldset.xp-controls", {}, h("legend", {}, "Change the model"), h("div.xp-grid", {}, ...shape.map(one => one.el))));
  paint();
  const stops = [models, bits, ...load, ...shape, line].map(part => part.stop);
  stops.push(watch(model, [...SHAPE, ...LOAD], paint));
  return () => stops.forEach(stop => stop());
}

export default { render };
