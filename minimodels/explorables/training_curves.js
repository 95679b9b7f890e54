import { h, frame, watch, update, choice, readout } from "./kit.js";

const TOP = 12;      // nats: what lies above is drawn at the edge
const TICKS = [0, 2, 4, 6, 8, 10, 12];

/** What is said to the guess, as in training_curves.py. */
export const verdict = ({ runs, run, guess }) => {
  if (!guess) return "";
  const { fault, clue } = runs[run];
  return guess === fault ? `Yes: ${fault}. ${clue}` : `No. Look again: ${clue}`;
};

/** Where a step stands from left to right, 0 to 1. */
export const place = (step, last, isLog) => isLog ? Math.log(step) / Math.log(last) : (step - 1) / (last - 1);

const line = (one, x) => one.loss.map((y, i) => `${i ? "L" : "M"}${(1000 * x(i)).toFixed(1)} ${(1000 * (1 - Math.min(y, TOP) / TOP)).toFixed(1)}`).join("");

function render({ model, el }) {
  const runs = model.get("runs"), right = model.get("right"), steps = model.get("steps");
  const last = steps[steps.length - 1], letters = Object.keys(runs);
  const faults = letters.map(letter => runs[letter].fault).sort();

  const which = choice(model, { label: "Run", watching: ["run"], get: () => model.get("run"),
    options: letters.map(letter => [letter, letter]), set: run => update(model, { run, guess: "" }) });
  const scale = choice(model, { label: "Steps", watching: ["log_x"], get: () => model.get("log_x"),
    options: [[false, "evenly"], [true, "doubling"]], set: log_x => update(model, { log_x }) });
  const guess = choice(model, { label: "What is wrong with it?", watching: ["guess", "run"], get: () => model.get("guess"),
    options: faults.map(fault => [fault, fault]), set: fault => update(model, { guess: fault }) });

  const ours = h("path.tc-run", {}), theirs = h("path.tc-right", {}), zero = h("path.tc-grid", {
    d: TICKS.map(y => `M0 ${1000 * (1 - y / TOP)}H1000`).join("") });
  const svg = h("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none" }, zero, theirs, ours);
  const dots = h("div"), ticks = h("div");
  const field = h("div.tc-field", { "aria-hidden": "true" }, svg, dots, ticks);
  const at = (left, y) => `left:${(100 * left).toFixed(2)}%;top:${(100 * (1 - Math.min(y, TOP) / TOP)).toFixed(2)}%`;
  const key = h("p.xp-note", {}, "Thick: training loss of this run. Thin: the right run. Rings: this run on unseen text; points: the right one. What is above 12 is drawn at 12.");
  const numbers = h("p.xp-readout"), answer = readout();

  const paint = () => {
    const state = { runs, run: model.get("run"), guess: model.get("guess") }, one = runs[state.run], isLog = model.get("log_x");
    const x = step => place(step, last, isLog);
    ours.setAttribute("d", line(one, i => x(steps[i])));
    theirs.setAttribute("d", line(right, i => x(steps[i])));
    dots.replaceChildren(...[["tc-dot", right], ["tc-ring", one]].flatMap(([kind, { valid }]) =>
      valid.map(([step, loss]) => h(`span.${kind}`, { style: at(x(step), loss) }))));
    const marks = isLog ? [1, 3, 10, 30, 150] : [1, 50, 100, 150];
    ticks.replaceChildren(
      ...TICKS.map(y => h("span.tc-y", { style: `top:${100 * (1 - y / TOP)}%` }, String(y))),
      ...marks.map(step => h("span.tc-x", { style: `left:${(100 * x(step)).toFixed(2)}%` }, String(step))));
    const end = one.valid[one.valid.length - 1][1], fixed = y => y.toFixed(2);
    numbers.textContent = `Run ${state.run}, nats a token: first step ${fixed(one.loss[0])}, last ${fixed(one.loss[one.loss.length - 1])}, `
      + `unseen text at the end ${fixed(end)}. The right run: ${fixed(right.loss[0])}, ${fixed(right.loss[right.loss.length - 1])}, `
      + `${fixed(right.valid[right.valid.length - 1][1])}.`;
    answer.say(verdict(state) || "Choose a fault. You may try as often as you like.");
  };

  frame(el, "What went wrong?", h("div.xp-controls.xp-row", {}, which.el, scale.el),
    h("div.tc-plot", {}, h("span.xp-note", {}, "loss, nats a token, by step"), field), key, numbers,
    h("div.xp-controls", {}, guess.el), ...answer.els);
  paint();
  const stops = [which.stop, scale.stop, guess.stop, answer.stop, watch(model, ["run", "guess", "log_x"], paint)];
  return () => stops.forEach(stop => stop());
}

export default { render };
