import { h, frame, watch, update, slider, choice, readout, figures, grouped, uid } from "./kit.js";

const FIRST = 257; // id of the first merge: 0 ends a document, 1 to 256 are bytes
const STOPS = [257, 258, 260, 264, 272, 288, 320, 384, 512, 768, 1024, 1536, 2048, 3072, 4096];
const LONGEST = 2000;
const STATE = ["text", "rows", "merges", "bytes_by_id", "words", "end"];

// ---- the tokenizer; a test compares it with the library that trained it

const key = (a, b) => a * 65536 + b;

/** What a state's merges give: {pair: id}, and the bytes of every token. */
export function vocabulary({ merges, rows, bytes_by_id }) {
  const ranks = new Map(), spelled = [[], ...bytes_by_id.map(b => [b])];
  for (let i = 0; i < Math.min(merges.length / 2, rows - FIRST); i++) {
    const [a, b] = merges.slice(2 * i, 2 * i + 2);
    ranks.set(key(a, b), FIRST + i);
    spelled.push([...spelled[a], ...spelled[b]]);
  }
  return { ranks, spelled };
}

/** The ids of one word: the pair that was learnt first is merged first, everywhere, until no pair is known. */
function encodeWord(ids, ranks) {
  for (;;) {
    let first = Infinity;
    for (let i = 1; i < ids.length; i++) first = Math.min(first, ranks.get(key(ids[i - 1], ids[i])) ?? Infinity);
    if (first === Infinity) return ids;
    const merged = [];
    for (let i = 0; i < ids.length; i++) {
      const isPair = i + 1 < ids.length && ranks.get(key(ids[i], ids[i + 1])) === first;
      merged.push(isPair ? first : ids[i]);
      if (isPair) i++;
    }
    ids = merged;
  }
}

/** The ids of a text. */
export function encode(state, { ranks } = vocabulary(state)) {
  const idOf = new Map(state.bytes_by_id.map((b, i) => [b, i + 1])), words = new RegExp(state.words, "gu"), known = new Map();
  const ofWord = word => {
    if (!known.has(word)) known.set(word, encodeWord([...new TextEncoder().encode(word)].map(b => idOf.get(b)), ranks));
    return known.get(word);
  };
  return state.text.split(state.end).flatMap((part, n) => [...(n ? [0] : []), ...(part.match(words) ?? []).flatMap(ofWord)]);
}

// ---- for the eye

const SIGNS = { " ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍" };

/** A token's bytes: spaces and breaks as signs, and what is no whole character as hexadecimal numbers. */
export function said(bytes) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(new Uint8Array(bytes));
    return [...text].map(c => SIGNS[c] ?? (/[\p{C}\p{Z}]/u.test(c) ? `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}` : c)).join("");
  } catch {
    return bytes.map(b => b.toString(16).toUpperCase().padStart(2, "0")).join(" ");
  }
}

/** The merges that made a token, in the order in which they were learnt: [[a, b, id], ...]. */
export function history(id, merges) {
  const made = new Map(), visit = i => {
    if (i < FIRST || made.has(i)) return;
    const [a, b] = merges.slice(2 * (i - FIRST), 2 * (i - FIRST) + 2);
    made.set(i, [a, b, i]);
    visit(a);
    visit(b);
  };
  visit(id);
  return [...made.values()].sort((x, y) => x[2] - y[2]);
}

function render({ model, el }) {
  const state = () => Object.fromEntries(STATE.map(name => [name, model.get(name)]));
  const id = uid();
  const area = h("textarea", { id, rows: 4, maxlength: LONGEST, spellcheck: "false", autocapitalize: "off",
    oninput: () => update(model, { text: area.value, chosen: -1 }) });
  const rows = slider(model, { key: "rows", label: "Rows of the vocabulary", stops: STOPS });
  const shown = choice(model, { label: "Show", watching: ["show"], options: [["text", "text"], ["ids", "numbers"]],
    get: () => model.get("show"), set: value => update(model, { show: value }) });
  const list = h("div.xp-tokens", { role: "group", "aria-label": "Tokens; arrow keys go from one to the next" });
  const made = h("div.xp-made", { "aria-live": "polite" }), line = readout();
  let ids = [], words = { ranks: new Map(), spelled: [] }, buttons = [];

  const choose = (at, isFocused) => {
    update(model, { chosen: at });
    if (isFocused) buttons[at]?.focus();
  };
  list.addEventListener("keydown", event => {
    const at = buttons.indexOf(event.target), last = buttons.length - 1;
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(last, next)), true);
  });

  const paintChosen = () => {
    const at = model.get("chosen"), known = at >= 0 && at < ids.length;
    buttons.forEach((button, i) => {
      button.tabIndex = i === (known ? at : 0) ? 0 : -1;
      button.setAttribute("aria-pressed", String(i === at));
    });
    if (!known) return made.replaceChildren(h("p.xp-note", {}, "Choose a token to see how it was made."));
    const token = ids[at], bytes = words.spelled[token], steps = history(token, model.get("merges"));
    const name = i => h("b", {}, said(words.spelled[i]));
    const size = `${bytes.length} ${bytes.length === 1 ? "byte" : "bytes"}`;
    const how = token === 0 ? "the end of a document; it stands for no byte"
      : steps.length ? `${size}, made by ${steps.length} ${steps.length === 1 ? "merge" : "merges"}` : `${size}, there from the start`;
    made.replaceChildren(
      h("p", {}, token === 0 ? h("b", {}, model.get("end")) : name(token), ` is token ${grouped(token)}: ${how}.`),
      h("ol", {}, ...steps.map(([a, b, i]) => h("li", {}, h("span.xp-note", {}, `merge ${grouped(i - FIRST + 1)}`), " ", name(a), " + ", name(b), " → ", name(i)))));
  };

  const paint = () => {
    const s = state();
    if (area.value !== s.text && document.activeElement !== area) area.value = s.text;
    words = vocabulary(s);
    ids = encode(s, words);
    const isText = model.get("show") === "text";
    buttons = ids.map((token, i) => {
      const text = token === 0 ? s.end : said(words.spelled[token]);
      return h(i % 2 ? "button.xp-token.xp-odd" : "button.xp-token", { type: "button", "aria-label": `${text}, token ${token}`,
        onclick: () => choose(i, false) }, isText ? text : String(token));
    });
    const breaks = ids.map(token => "\n".repeat(words.spelled[token].filter(b => b === 10).length));
    list.replaceChildren(...buttons.flatMap((button, i) => isText && breaks[i] ? [button, breaks[i]] : [button, isText ? "" : " "]));
    const n = new TextEncoder().encode(s.text).length, characters = [...s.text].length;
    const per = ids.length ? ` ${figures(n / ids.length)} bytes a token.` : "";
    line.say(`${grouped(characters)} characters, ${grouped(n)} bytes, ${grouped(ids.length)} tokens of ${grouped(s.rows)} rows.${per}`);
    paintChosen();
  };

  frame(el, "How the book's tokenizer cuts your text",
    h("div.xp-controls.xp-typed", {}, h("label", { for: id }, "Your text"), area),
    h("div.xp-controls.xp-grid", {}, rows.el, shown.el), list, ...line.els, made);
  area.value = model.get("text");
  paint();
  const stops = [rows.stop, shown.stop, line.stop, watch(model, [...STATE, "show"], paint), watch(model, ["chosen"], paintChosen)];
  return () => stops.forEach(stop => stop());
}

export default { render };
