import { h, frame, watch, update, choice, readout, figures } from "./kit.js";

const PHASES = [[1, "1 sample"], [2, "2 reward"], [3, "3 advantage"], [4, "4 tokens"]];
const FACTS = ["prompt", "answer", "end", "samples", "clip", "ratio", "format_weight", "divides_by_std"];
const STATE = ["phase", "divides", "flipped", "sample", "token"];
const SEEN = 0.01, FULL = Math.log(2); // nats: a change that is shaded, and one that is shaded fully

// ---- the formulas of grpo_step.py; a test compares the two

const sum = numbers => numbers.reduce((a, b) => a + b, 0);
const mean = numbers => sum(numbers) / numbers.length;

function deviation(numbers) {
  const middle = mean(numbers);
  return Math.sqrt(sum(numbers.map(x => (x - middle) ** 2)) / (numbers.length - 1));
}

export const verdicts = s => s.samples.map((one, i) => s.flipped.includes(i) ? 1 - one.accuracy : one.accuracy);
export const rewards = s => verdicts(s).map((right, i) => right + s.format_weight * s.samples[i].format);

export function advantages(s) {
  const earned = rewards(s), middle = mean(earned), by = s.divides ? deviation(earned) + 1e-4 : 1;
  return earned.map(r => (r - middle) / by);
}

const tidy = x => Math.floor(1e6 * x + 0.5) / 1e6;
const shown = token => `“${token.replaceAll(" ", "·")}”`;

export function signed(x) {
  const n = Math.floor(100 * tidy(Math.abs(x)) + 0.5);
  return `${n === 0 ? "" : x > 0 ? "+" : "−"}${(n / 100).toFixed(2)}`;
}

export function probability(logP) {
  const percent = 100 * Math.exp(logP);
  return percent >= 1 ? `${Math.floor(100 * percent + 0.5) / 100} %` : `${figures(percent)} %`;
}

/** Whether the reader has set the rewards or the division otherwise than the update had them. */
const isChanged = s => s.flipped.length > 0 || s.divides !== s.divides_by_std;

const SAID = {
  1: s => `The model wrote ${s.samples.length} answers to ${shown(s.prompt)}, each drawn token by token. A right answer is ${s.answer}.`,
  2: s => {
    const found = verdicts(s), formed = sum(s.samples.map(one => one.format));
    const turned = s.flipped.length ? ` Verdicts that you flipped: ${s.flipped.length}.` : "";
    return `${sum(found)} of ${found.length} are right, which earns 1; ${formed} have the format, which earns ${figures(s.format_weight)}. `
      + `The mean reward is ${figures(tidy(mean(rewards(s))))}.${turned}`;
  },
  3: s => {
    const earned = rewards(s), moved = advantages(s).map(tidy), count = test => moved.filter(test).length, std = figures(tidy(deviation(earned)));
    if (!moved.some(A => A)) {
      return `All ${earned.length} earn ${figures(tidy(earned[0]))}: nobody beats the group, every advantage is 0, and this question teaches nothing.`;
    }
    return `${count(A => A > 0)} of ${earned.length} beat the mean of ${figures(tidy(mean(earned)))} and are to become likelier; `
      + `${count(A => A < 0)} are to become less likely. ${s.divides ? "Divided" : "Not divided"} by the standard deviation, ${std}.`;
  },
  4: s => {
    const asked = s.samples.filter(one => one.advantage);
    const mine = isChanged(s) ? "You changed the advantages, but what is shown is the update that was made, with the judge's rewards. " : "";
    if (!asked.length) return `${mine}Every advantage is 0, so there was nothing to change.`;
    const kept = asked.filter(one => one.advantage * tidy(sum(one.after) - sum(one.before)) > 0).length;
    const all = s.samples.flatMap((one, i) => one.tokens.map((token, j) => ({ token, i, j, from: one.before[j], to: one.after[j] })));
    const most = all.reduce((a, b) => Math.abs(b.to - b.from) > Math.abs(a.to - a.from) ? b : a);
    return `${mine}After one update on this question alone, ${kept} of ${asked.length} answers moved the way that their advantage asks. The largest change: `
      + `token ${most.j + 1} of answer ${most.i + 1}, ${shown(most.token)}, from ${probability(most.from)} to ${probability(most.to)}.`;
  },
};

/** What the phase shows, in words. */
export const said = s => SAID[s.phase](s);

/** The way a token went: 1 likelier, -1 less likely, 0 hardly moved. */
const way = by => Math.abs(by) < SEEN ? 0 : Math.sign(by);
const WAYS = { 1: "likelier", "-1": "less likely", 0: "hardly moved" };

/** One token before and after the update, in words. */
export function told(s, i, j) {
  const one = s.samples[i], by = one.after[j] - one.before[j], from = probability(one.before[j]), to = probability(one.after[j]);
  const r = Math.exp(s.ratio === "token" ? by : sum(one.after) - sum(one.before)), A = one.advantage;
  const isHeld = A > 0 && r > 1 + s.clip || A < 0 && r < 1 - s.clip;
  const held = isHeld ? ` The ratio${s.ratio === "token" ? "" : " of the whole answer"}, ${figures(r)}, has left the clip's range: `
    + "in another update from these samples its advantage would not push it." : "";
  return `Answer ${i + 1}, token ${j + 1} of ${one.tokens.length}, ${shown(one.tokens[j])}: ${from} → ${to}, ${WAYS[way(by)]}.${held}`;
}

// ---- the answers as texts: in the last phase each token can be pointed at, with one Tab stop for all and arrows inside

function texts(model, get) {
  const { samples, end } = get();
  const rows = samples.map(one => {
    const tokens = one.tokens.map((token, j) => {
      const el = h("span.gs-token", { style: `--i:${j}` }, token === end ? "end" : token);
      el.classList.toggle("gs-tag", token.length > 1);
      el.classList.toggle("gs-end", token === end);
      return el;
    });
    const text = h("div.gs-text", {}, ...tokens), note = h("p.gs-note");
    return { tokens, text, note, el: h("li", {}, h("div", {}, text, note)) };
  });
  const el = h("ol.gs-answers", {}, ...rows.map(row => row.el));
  const flat = rows.flatMap((row, i) => row.tokens.map((token, j) => ({ token, i, j })));
  const go = (to, withFocus) => {
    const { token, i, j } = flat[Math.max(0, Math.min(to, flat.length - 1))];
    update(model, { sample: i, token: j });
    if (withFocus) token.focus();
  };
  const above = (from, sign) => { // the nearest token on the next line of the page
    const boxes = flat.map(({ token }) => token.getBoundingClientRect()), here = boxes[from];
    const others = boxes.map((box, n) => [n, box]).filter(([, box]) => sign * (box.top - here.top) > here.height / 2);
    const line = Math.min(...others.map(([, box]) => sign * box.top));
    const near = others.filter(([, box]) => sign * box.top < line + here.height / 2);
    return near.length ? near.reduce((a, b) => Math.abs(b[1].left - here.left) < Math.abs(a[1].left - here.left) ? b : a)[0] : from;
  };
  el.addEventListener("keydown", event => {
    const s = get(), at = flat.findIndex(one => one.i === s.sample && one.j === s.token);
    const to = { ArrowRight: () => at + 1, ArrowLeft: () => at - 1, Home: () => 0, End: () => flat.length - 1,
                 ArrowDown: () => above(at, 1), ArrowUp: () => above(at, -1) }[event.key];
    if (s.phase !== 4 || !to || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(to(), true);
  });
  flat.forEach(({ token }, n) => {
    token.addEventListener("click", () => { if (get().phase === 4) go(n, true); });
    token.addEventListener("pointerenter", event => {
      if (get().phase === 4 && event.pointerType === "mouse" && !el.contains(document.activeElement)) go(n, false);
    });
  });

  const set = (one, values) => Object.entries(values).forEach(([key, value]) => value == null ? one.removeAttribute(key) : one.setAttribute(key, value));
  const paint = s => {
    const isLast = s.phase === 4;
    el.classList.toggle("gs-first", s.phase === 1);
    rows.forEach(({ text, note }, i) => {
      set(text, { role: isLast ? "listbox" : null, "aria-label": isLast ? `Tokens of answer ${i + 1}` : null });
      note.hidden = s.phase === 1;
      note.replaceChildren(...(isLast ? [became(s.samples[i])] : marks(s, i)));
    });
    flat.forEach(({ token, i, j }) => {
      const by = s.samples[i].after[j] - s.samples[i].before[j], isHere = isLast && i === s.sample && j === s.token;
      token.style.setProperty("--w", Math.min(1, Math.abs(by) / FULL).toFixed(2));
      token.classList.toggle("gs-up", isLast && way(by) > 0);
      token.classList.toggle("gs-down", isLast && way(by) < 0);
      token.classList.toggle("gs-here", isHere);
      set(token, isLast ? { role: "option", tabindex: isHere ? 0 : -1, "aria-selected": String(isHere), "aria-label": told(s, i, j) }
        : { role: null, tabindex: null, "aria-selected": null, "aria-label": null });
    });
  };
  return { el, paint };
}

const mark = (isGiven, yes, no) => h("span.gs-mark", {}, h("b", { "aria-hidden": "true" }, isGiven ? "✓" : "✗"), ` ${isGiven ? yes : no}`);
const marks = (s, i) => [mark(verdicts(s)[i], "right", "wrong"), mark(s.samples[i].format, "format", "no format"),
  h("span.gs-mark", {}, `reward ${figures(tidy(rewards(s)[i]))}`), s.flipped.includes(i) ? h("span.gs-mark", {}, "verdict flipped by you") : null].filter(one => one);

/** What became of an answer as a whole, in words. */
const became = one => `Advantage ${signed(one.advantage)}, now ${figures(Math.exp(sum(one.after) - sum(one.before)))} times as likely`;

// ---- the advantages: bars from the mean, on one scale for all that the reader can set

function chart(model, get) {
  const { samples, format_weight } = get(), G = samples.length, reach = Math.max((G - 1) / Math.sqrt(G), 1 + format_weight);
  const middle = h("span.gs-mean");
  const rows = samples.map((one, i) => {
    const box = h("input", { type: "checkbox", "aria-label": `Flip the judge's verdict on answer ${i + 1}`, onchange: () => {
      const { flipped } = get();
      update(model, { flipped: flipped.includes(i) ? flipped.filter(n => n !== i) : [...flipped, i].sort((a, b) => a - b) });
    } });
    const earned = h("td"), line = h("line", { x1: 0, x2: 1600, y1: 5, y2: 5 }), number = h("span.gs-number");
    const bar = h("div.gs-bar", {}, h("svg", { width: 1600, height: 10 }, line)), field = h("div.gs-field", { "aria-hidden": "true" }, bar);
    const name = h("th", { scope: "row" }, h("span.gs-n", {}, `${i + 1}`), h("span.gs-answer", {}, one.answer || "none"));
    return { box, earned, line, bar, number, el: h("tr", {}, name, earned, h("td", {}, h("div.gs-cell", {}, field, number)), h("td", {}, box)) };
  });
  const head = h("tr", {}, ...["Answer", "Reward"].map(words => h("th", { scope: "col" }, words)),
    h("th", { scope: "col" }, h("div.gs-cell", {}, h("div.gs-head", {}, "Advantage", middle))), h("th", { scope: "col" }, "Flip verdict"));
  const el = h("table.xp-table.gs-table", {}, h("caption", {}, "Flip one of the judge's verdicts, and see whose advantage moves."),
    h("thead", {}, head), h("tbody", {}, ...rows.map(row => row.el)));
  const paint = s => {
    const A = advantages(s), earned = rewards(s), right = verdicts(s);
    middle.textContent = `mean ${figures(tidy(mean(earned)))}`;
    rows.forEach(({ box, earned: cell, line, bar, number }, i) => {
      box.checked = s.flipped.includes(i);
      cell.replaceChildren(h("span.xp-hidden", {}, right[i] ? "right, " : "wrong, "), h("b.gs-sign", { "aria-hidden": "true" }, right[i] ? "✓" : "✗"), ` ${figures(tidy(earned[i]))}`);
      line.setAttribute("class", A[i] < 0 ? "gs-minus" : "gs-plus");
      bar.style.width = `${50 * Math.min(1, Math.abs(A[i]) / reach)}%`;
      bar.style[A[i] < 0 ? "right" : "left"] = "50%";
      bar.style[A[i] < 0 ? "left" : "right"] = "auto";
      number.textContent = signed(A[i]);
    });
  };
  return { el, paint };
}

function render({ model, el }) {
  const facts = Object.fromEntries(FACTS.map(key => [key, model.get(key)])); // a new step is a new piece
  const get = () => {
    const s = { ...facts, ...Object.fromEntries(STATE.map(key => [key, model.get(key)])) }; // Python may point beyond the last
    const sample = Math.min(s.sample, s.samples.length - 1), token = Math.min(s.token, s.samples[sample].tokens.length - 1);
    return { ...s, sample, token };
  };
  const phases = choice(model, { label: "Phase", options: PHASES, watching: ["phase"], get: () => model.get("phase"), set: phase => update(model, { phase }) });
  const moves = [["Back", -1], ["Next", 1]].map(([words, by]) => {
    const one = h("button", { type: "button", onclick: () => {
      one.focus(); // Safari does not
      update(model, { phase: Math.max(1, Math.min(4, model.get("phase") + by)) });
    } }, words);
    return { one, last: by < 0 ? 1 : 4 };
  });
  const box = h("input", { type: "checkbox", onchange: () => update(model, { divides: box.checked }) });
  const divides = h("label.gs-box", {}, box, "divide by the standard deviation");
  const question = h("p.gs-question", {}, h("span.xp-note", {}, "Question "), h("b", {}, facts.prompt), h("span.xp-note", {}, " a right answer "), h("b", {}, facts.answer));
  const key = h("p.xp-note.gs-key", {}, ...[["up", "likelier"], ["down", "less likely"]].map(([kind, words]) =>
    h("span", {}, h(`span.gs-token.gs-${kind}`, { "aria-hidden": "true", style: "--w:1" }, "7"), ` ${words}`)),
    h("span", {}, "Full shade: doubled or halved. Point at a token, or Tab to the texts and use the arrow keys."));
  const token = h("p.gs-told"), answers = texts(model, get), bars = chart(model, get), line = readout();

  let saying;
  const paint = () => {
    const s = get();
    answers.paint(s);
    bars.paint(s);
    box.checked = s.divides;
    moves.forEach(({ one, last }) => one.setAttribute("aria-disabled", String(s.phase === last)));
    answers.el.hidden = s.phase === 3;
    divides.hidden = bars.el.hidden = s.phase !== 3;
    key.hidden = token.hidden = s.phase !== 4;
    token.textContent = told(s, s.sample, s.token);
    line.els[0].classList.toggle("gs-warning", s.phase === 4 && isChanged(s));
    if (said(s) !== saying) line.say(saying = said(s)); // to point at a token is no news
  };

  frame(el, "What does one step of GRPO change?", question,
    h("div.xp-controls.xp-row.gs-controls", {}, phases.el, h("div.ds-steps", { role: "group", "aria-label": "Phases" }, ...moves.map(({ one }) => one))),
    ...line.els, divides, token, key, answers.el, bars.el);
  paint();
  const stops = [phases.stop, line.stop, watch(model, STATE, paint)];
  return () => stops.forEach(stop => stop());
}

export default { render };
