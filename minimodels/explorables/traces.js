import { h, frame, watch, update, choice, slider, tabular, readout, figures, withUnit, range, COUNTS } from "./kit.js";

const FACTS = ["problems", "texts", "students", "end"];
const STATE = ["problem", "student", "other", "spent"];
const NOBODY = -1;

// ---- the formulas of traces.py; a test compares the two

/** A text's columns and its answer; null if it is not in the format. */
export function split(text, end) {
  const body = text.endsWith(end) ? text.slice(0, text.length - end.length) : text;
  const found = /^<think>([^<>]*)<\/think><answer>([^<>]*)<\/answer>$/.exec(body);
  return found && [found[1] ? found[1].split(";") : [], found[2]];
}

const places = (...all) => range(0, Math.max(0, ...all.map(columns => columns.length)) - 1);

/** Of each place that either has: "right", "wrong", "missing" or "too many". */
export const verdicts = (columns, right) => places(columns, right).map(k =>
  k >= right.length ? "too many" : k >= columns.length ? "missing" : columns[k] === right[k] ? "right" : "wrong");

/** Where a text first differs from the teacher's: a column, from 0; their number if it is at the answer; -1 if nowhere. */
export function leaves(own, teacher) {
  const k = places(own[0], teacher[0]).find(i => own[0][i] !== teacher[0][i]);
  return k ?? (own[1] === teacher[1] ? -1 : places(own[0], teacher[0]).length);
}

function leaving(own, teacher) {
  const k = leaves(own, teacher), mine = own[0][k], theirs = teacher[0][k];
  if (k < 0) return "Here its columns and its answer are the teacher's.";
  if (mine === undefined && theirs === undefined) {
    return `Here it leaves the teacher's text only at the answer: it writes “${own[1]}”, the teacher “${teacher[1]}”.`;
  }
  const how = mine === undefined ? `it answers, where the teacher writes “${theirs}”`
    : theirs === undefined ? `it goes on with “${mine}”, where the teacher answers` : `it writes “${mine}”, the teacher “${theirs}”`;
  return `Here it leaves the teacher's text at column ${k + 1}: ${how}.`;
}

const percent = share => `${figures(100 * share)} %`;
const tokens = spent => `${withUnit(spent, COUNTS)} tokens`;
const moment = spent => spent ? `after ${tokens(spent)}` : "at the start";

/** The chosen student, and a second one if there is one. */
const shown = s => [s.students[s.student], s.other === s.student ? null : s.students[s.other]].filter(one => one);

/** The student's look nearest to the moment, the earlier of two. */
const look = (student, spent) => student.looks.reduce((best, one) => Math.abs(one[0] - spent) < Math.abs(best[0] - spent) ? one : best);

/** What a student writes at the moment: tokens spent, accuracy, its text, and this in its pieces. */
function written(s, student) {
  const [spent, accuracy, ...numbers] = look(student, s.spent), text = s.texts[numbers[s.problem]];
  return { name: student.name, spent, accuracy, text, found: split(text, s.end) };
}

function saidOf(s, student) {
  const one = written(s, student), problem = s.problems[s.problem], teacher = split(s.texts[problem.teacher], s.end);
  const head = `“${one.name}”: ${moment(one.spent)}, ${percent(one.accuracy)} of new problems are right.`;
  if (!one.found) return `${head} Here its text is not in the format${one.text.endsWith(s.end) ? "" : " and has no end"}: no column to compare.`;
  const verdict = `Its answer, “${one.found[1]}”, is ${one.found[1] === problem.answer ? "right" : "wrong"}.`;
  return `${head} ${teacher ? leaving(one.found, teacher) : "The teacher has left the format: no column to compare."} ${verdict}`;
}

/** Where each student stands, and where its text leaves the teacher's, in words: a line each. */
export const said = s => shown(s).map(student => saidOf(s, student)).join("\n");

// ---- the texts side by side: a row a column of the sum, and one for the answer

const mark = verdict => h("span.tr-mark", {}, h("b", { "aria-hidden": "true" }, verdict === "right" ? "✓" : "✗"), ` ${verdict}`);

/** A piece of a text with its verdict, or an empty place, which has none. */
const cell = (kind, text, verdict, isHere) => h(`td.tr-cell${isHere ? ".tr-leaves" : ""}`, {},
  h(`span.tr-text.tr-${kind}`, {}, text === undefined ? "–" : text === "" ? h("i", {}, "empty") : text), verdict ? mark(verdict) : null,
  isHere ? h("span.tr-here", {}, "leaves the teacher") : null);

/** A text that is not in the format, whole: one cell over all rows. A line had best break behind a semicolon. */
function whole(kind, { text }, end, rows) {
  const hasEnd = text.endsWith(end), body = hasEnd ? text.slice(0, text.length - end.length) : text;
  const pieces = body.split(";").flatMap((piece, i) => i ? [";", h("wbr"), piece] : [piece]);
  return h("td.tr-cell", { rowspan: rows }, h(`span.tr-text.tr-${kind}`, {}, ...pieces, hasEnd ? h("i", {}, " end") : null),
    mark(hasEnd ? "not in the format" : "not in the format, and without an end"));
}

/** The cells of one writer from top to bottom; null below a cell that fills all rows. */
function cells(s, kind, one, teacher, rows) {
  const { columns: right, answer } = s.problems[s.problem];
  if (!one.found) return range(0, rows).map(k => k ? null : whole(kind, one, s.end, rows + 1));
  const [columns, own] = one.found, here = teacher ? leaves(one.found, teacher) : -1, marks = verdicts(columns, right);
  const isAnswer = teacher && here === places(columns, teacher[0]).length;
  return [...range(0, rows - 1).map(k => cell(kind, columns[k], marks[k], k === here && !isAnswer)),
    cell(kind, own, own === answer ? "right" : "wrong", isAnswer)];
}

/** The heads and the rows of the table at this moment. */
function grid(s) {
  const text = s.texts[s.problems[s.problem].teacher], teacher = { name: "Teacher", text, found: split(text, s.end) };
  const all = [["teacher", teacher, null], ...shown(s).map((student, i) => [i ? "other" : "student", written(s, student), teacher.found])];
  const rows = places(s.problems[s.problem].columns, ...all.map(([, one]) => one.found?.[0] ?? [])).length;
  const lines = all.map(([kind, one, beside]) => cells(s, kind, one, beside, rows));
  const heads = all.map(([kind, one]) => h("th", { scope: "col" }, h(`span.tr-name.tr-${kind}`, {}, one.name),
    ...(kind === "teacher" ? ["after its training"] : [moment(one.spent), `${percent(one.accuracy)} right`]).map(words => h("span.xp-note", {}, words))));
  const row = k => h("tr", {}, h("th", { scope: "row" }, k < rows ? `${k + 1}` : "Answer"), ...lines.map(line => line[k]).filter(td => td));
  return { heads, rows: range(0, rows).map(row) };
}

function render({ model, el }) {
  const facts = Object.fromEntries(FACTS.map(key => [key, model.get(key)])); // other texts are another piece
  const get = () => ({ ...facts, ...Object.fromEntries(STATE.map(key => [key, model.get(key)])) });
  const names = facts.students.map((student, i) => [i, student.name]);
  const longest = facts.students.reduce((best, one) => one.looks.length > best.looks.length ? one : best);

  const problem = choice(model, { label: "Problem", options: facts.problems.map((one, i) => [i, one.prompt]), watching: ["problem"],
    get: () => model.get("problem"), set: i => update(model, { problem: i }) });
  const student = choice(model, { label: "Student, by what it learns from", options: names, watching: ["student"], get: () => model.get("student"),
    set: i => update(model, { student: i, ...(i === model.get("other") ? { other: model.get("student") } : {}) }) }); // the two change places
  const other = choice(model, { label: "Beside it", options: [[NOBODY, "nobody"], ...names], watching: ["student", "other"],
    get: () => model.get("other") === model.get("student") ? NOBODY : model.get("other"), set: i => update(model, { other: i }) });
  const time = slider(model, { key: "spent", label: "Student tokens spent", stops: longest.looks.map(([spent]) => spent), show: tokens });
  const input = time.el.querySelector("input"), options = [...other.el.querySelectorAll("label")];
  const note = h("p.xp-note", {}, "A token that the student reads or writes counts once; one that it learns from, three times.");

  const caption = h("caption"), table = tabular(caption, [], []), line = readout();
  table.classList.add("tr-table");
  line.els[0].classList.add("tr-said");
  const paint = () => {
    const s = get(), { heads, rows } = grid(s);
    options.forEach((label, i) => { label.hidden = i - 1 === s.student; });
    input.setAttribute("aria-valuetext", [tokens(s.spent), ...shown(s).map(one => `${one.name}: ${percent(look(one, s.spent)[1])} right`)].join("; "));
    caption.textContent = `Right is ${s.problems[s.problem].prompt}${s.problems[s.problem].answer}. Column 1 is that of the last digits.`;
    table.tHead.rows[0].replaceChildren(h("th", { scope: "col" }, "Column"), ...heads);
    table.tBodies[0].replaceChildren(...rows);
    line.say(said(s));
  };

  const choices = [facts.problems.length > 1 ? problem.el : null, ...(names.length > 1 ? [student.el, other.el] : [])].filter(one => one);
  frame(el, "What does the student write?", h("div.xp-controls.tr-controls", {}, ...choices, time.el, note), table, ...line.els);
  paint();
  const stops = [problem.stop, student.stop, other.stop, time.stop, line.stop, watch(model, STATE, paint)];
  return () => stops.forEach(stop => stop());
}

export default { render };
