import { h, frame, watch, update, choice, tabular, readout, figures } from "./kit.js";

const ROWS = 4;
const SIGNS = { stands: "✓", falls: "✗", waits: "?" };

// ---- the formulas of draft_steps.py; a test compares the two

/** Of a run after so many passes: passes, tokens, drafts that were checked and that stand. */
export const counts = (run, step) => {
  const done = run.passes.slice(0, step), sum = of => done.reduce((all, pass) => all + of(pass), 0);
  return { passes: done.length, tokens: Math.min(sum(pass => pass[0] + 1), run.tokens.length - 1),
           drafted: sum(pass => pass.length - 1), accepted: sum(pass => pass[0]) };
};

export const shown = token => `“${token.replaceAll("\n", "⏎").replaceAll(" ", "·")}”`;
export const percent = share => `${Math.floor(100 * share + 0.5)} %`;
const listed = tokens => tokens.map(shown).join(", ");

/** The tokens that pass number i, from 0, wrote. */
const wrote = (run, i) => run.tokens.slice(1 + counts(run, i).tokens, 1 + counts(run, i + 1).tokens);

/** What the last pass did, in words. */
export const said = (run, chosen) => {
  const c = counts(run, chosen), step = c.passes, waiting = step < run.passes.length ? listed(run.passes[step].slice(1)) : "";
  const ahead = waiting && ` The module drafts ${waiting}.`;
  if (step === 0) return `The pass that reads the prompt writes ${shown(run.tokens[0])}.${ahead}`;
  const [n, ...drafts] = run.passes[step - 1], tokens = wrote(run, step - 1), last = shown(tokens.at(-1));
  const end = step < run.passes.length ? "" : ` The text is complete: ${c.tokens} tokens in ${c.passes} passes; without drafts it takes ${c.tokens}.`;
  const also = n < drafts.length ? `rejects ${listed(drafts.slice(n))}, ` : "";
  const what = !drafts.length ? `has no draft to check, and writes ${last}`
    : n === 0 ? `rejects ${listed(drafts)}, and writes ${last} instead`
    : tokens.length <= n ? `accepts ${listed(tokens)}, and the text ends`
    : `accepts ${listed(drafts.slice(0, n))}, ${also}and writes ${last}`;
  return `Pass ${step} ${what}: ${tokens.length > 1 ? `${tokens.length} tokens` : "one token"}.${ahead}${end}`;
};

/** The table below the texts, so far: a name, with drafts, without. */
export const rowsOf = (run, step) => {
  const { passes, tokens, drafted, accepted } = counts(run, step);
  const share = drafted ? `, ${percent(accepted / drafted)}` : "";
  return [["Passes", `${passes}`, `${tokens}`], ["Tokens", `${tokens}`, `${tokens}`],
          ["Tokens a pass", passes ? figures(tokens / passes) : "none yet", passes ? "1" : "none yet"],
          ["Drafts accepted", `${accepted} of ${drafted}${share}`, "no drafts"]];
};

// ---- the two texts. All of a text stands in place from the start and is shown as it is written, so that nothing moves

/** A token, and behind it the lines that it begins; what is struck begins none. */
const word = (token, kind, { sign = false, breaks = true } = {}) => {
  const cut = token.indexOf("\n"), seen = h("span.ds-token", {}, sign ? h("span.ds-sign") : null, cut < 0 ? token : `${token.slice(0, cut)}⏎`);
  seen.classList.add(`ds-${kind}`);
  return { seen, els: cut < 0 || !breaks ? [seen] : [seen, token.slice(cut)] };
};

/** The text with drafts: a group of tokens for each pass. */
function drafted(run) {
  const groups = run.passes.map(([n, ...drafts], i) => {
    const tokens = wrote(run, i);
    const parts = [...drafts.map((draft, k) => ({ draft, stands: k < n, ...word(draft, "draft", { sign: true, breaks: k < n }) })),
                   ...tokens.slice(n).map(token => word(token, "own"))];
    return { parts, el: h("span.ds-pass", {}, ...parts.flatMap(part => part.els)) };
  });
  const paint = step => groups.forEach(({ parts, el }, i) => {
    el.classList.toggle("ds-now", i === step - 1);
    el.classList.toggle("ds-later", i > step);
    for (const { seen, draft, stands } of parts) {
      const kind = i > step || (i === step && draft === undefined) ? "later" : draft === undefined ? "" : i === step ? "waits" : stands ? "stands" : "falls";
      for (const one of ["later", ...Object.keys(SIGNS)]) seen.classList.toggle(`ds-${one}`, one === kind);
      if (draft !== undefined) seen.firstChild.textContent = SIGNS[kind] ?? "";
    }
  });
  return { els: groups.map(group => group.el), paint };
}

/** The same text without drafts: as far as these passes would have come, and what is still missing. */
function plain(run) {
  const groups = run.tokens.slice(1).map(token => h("span.ds-pass", {}, ...word(token, "own").els));
  const paint = (passes, tokens) => groups.forEach((el, i) => {
    el.classList.toggle("ds-later", i >= tokens);
    el.classList.toggle("ds-missing", i >= passes && i < tokens);
    el.classList.toggle("ds-now", i === passes - 1);
  });
  return { els: groups, paint };
}

function render({ model, el }) {
  const get = () => ({ run: model.get("runs")[model.get("run")], step: model.get("step") });
  const texts = choice(model, { label: "Prompt", watching: ["run"], get: () => model.get("run"), set: i => update(model, { run: i, step: 0 }),
    options: model.get("runs").map((one, i) => [i, one.name]) });

  const moves = { start: ["Start", () => 0], back: ["Back", at => at - 1], next: ["Next pass", at => at + 1], end: ["End", (at, last) => last] };
  const go = name => {
    const { run, step } = get(), last = run.passes.length;
    update(model, { step: Math.max(0, Math.min(last, moves[name][1](Math.min(step, last), last))) });
  };
  const buttons = Object.entries(moves).map(([name, [words]]) => {
    const one = h("button", { type: "button", onclick: () => { one.focus(); go(name); } }, words); // Safari does not focus it
    return [name, one];
  });
  const bar = h("div.ds-steps", { role: "group", "aria-label": "Steps", onkeydown: event => {
    const name = { ArrowRight: "next", ArrowLeft: "back", Home: "start", End: "end" }[event.key];
    if (!name || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(name);
  } }, ...buttons.map(([, one]) => one), h("span.xp-note.ds-keys", {}, "Or the arrow keys, Home and End."));

  const fields = ["With drafts", "Without drafts"].map(name => {
    const note = h("b"), text = h("div.ds-text", { role: "img" });
    return { note, text, el: h("div", {}, h("p.ds-name", {}, name, h("span.xp-note", {}, note)), text) };
  });
  const key = h("p.xp-note.ds-key", {}, ...[["stands", "accepted"], ["falls", "rejected, the right token follows"], ["waits", "waits for the next pass"]]
    .map(([kind, words]) => h("span", {}, h(`span.ds-token.ds-draft.ds-${kind}`, { "aria-hidden": "true" }, h("span.ds-sign", {}, SIGNS[kind]), "draft"), ` ${words}`)));
  const cells = Array.from({ length: ROWS }, () => [h("th", { scope: "row" }), h("td"), h("td")]);
  const table = tabular(h("caption", {}, "Counted after the pass that reads the prompt, which writes the first token either way."),
    ["So far", "With drafts", "The same text without"], cells.map(row => h("tr", {}, ...row)));
  const line = readout();

  let drawn = null, halves = [];
  const paint = () => {
    const { run, step } = get(), c = counts(run, step), last = run.passes.length;
    if (drawn !== run) {
      halves = [drafted(run), plain(run)];
      halves.forEach(({ els }, i) => fields[i].text.replaceChildren(h("span.ds-prompt", {}, run.prompt), ...word(run.tokens[0], "own").els, ...els));
      drawn = run;
    }
    halves[0].paint(c.passes);
    halves[1].paint(c.passes, c.tokens);
    buttons.forEach(([name, one]) => one.setAttribute("aria-disabled", String(["start", "back"].includes(name) ? c.passes === 0 : c.passes === last)));
    rowsOf(run, step).forEach((row, i) => row.forEach((words, j) => { cells[i][j].textContent = words; }));
    const passes = n => n === 1 ? "1 pass" : `${n} passes`;
    fields[0].note.textContent = passes(c.passes);
    fields[1].note.textContent = `${passes(c.tokens)} to the same place`;
    const text = n => `“${run.prompt}${run.tokens.slice(0, n + 1).join("")}”`;
    const waits = c.passes < last && run.passes[c.passes].length > 1 ? ` Waiting: ${listed(run.passes[c.passes].slice(1))}.` : "";
    fields[0].text.setAttribute("aria-label", `With drafts, after ${passes(c.passes)}: ${text(c.tokens)}. ${c.accepted} of ${c.drafted} drafts accepted.${waits}`);
    fields[1].text.setAttribute("aria-label", `Without drafts, after ${passes(c.passes)} as well: ${text(c.passes)}. ${c.tokens - c.passes} tokens behind.`);
    line.say(said(run, step));
  };

  frame(el, "Which drafts stand?", h("div.xp-controls", {}, texts.el, bar), ...line.els, h("div.ds-two", {}, ...fields.map(field => field.el)), key, table);
  paint();
  const stops = [texts.stop, line.stop, watch(model, ["runs", "run", "step"], paint)];
  return () => stops.forEach(stop => stop());
}

export default { render };
