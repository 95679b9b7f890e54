import { h, frame, watch, update, slider, choice, tabular, readout, range, uid } from "./kit.js";

const STATE = ["format", "code", "number", "zoom"];
const EXACT = 12, ROUNDED = 9; // digits: a number with more than 12 is written with 9
const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";

// ---- the formulas of float_bits.py; a test compares the two. f: { exponent_bits: E, mantissa_bits: m, has_infinity }

const half = f => 2 ** (f.exponent_bits + f.mantissa_bits); // of the codes: the positive ones
const bias = f => 2 ** (f.exponent_bits - 1) - 1;
const clip = (code, f) => code % (2 * half(f)); // Python may change the format first, and the code after it

/** Sign, exponent and mantissa, as written. Plain arithmetic: a code of 32 bits is negative to JavaScript's bitwise operators. */
export const fieldsOf = (code, f) => {
  const M = 2 ** f.mantissa_bits, size = clip(code, f) % half(f);
  return { sign: clip(code, f) >= half(f) ? 1 : 0, exponent: Math.floor(size / M), mantissa: size % M };
};

/** The code of the largest finite number. */
export const largest = f => f.has_infinity ? (2 ** f.exponent_bits - 1) * 2 ** f.mantissa_bits - 1 : half(f) - 2;

/** What a code stands for. */
export const valueOf = (code, f) => {
  const { sign, exponent, mantissa } = fieldsOf(code, f), side = sign ? -1 : 1;
  if (clip(code, f) % half(f) > largest(f)) return f.has_infinity && mantissa === 0 ? side * Infinity : NaN;
  return side * (mantissa + (exponent ? 2 ** f.mantissa_bits : 0)) * 2 ** (Math.max(exponent, 1) - bias(f) - f.mantissa_bits);
};

/** The code of the nearest number, ties to even; beyond the largest it is the largest. */
export const codeOf = (number, f) => {
  const size = Math.abs(number), least = 1 - bias(f);
  let e = size ? Math.max(Math.floor(Math.log2(size)), least) : least;
  while (e > least && 2 ** e > size) e--; // a logarithm is rounded
  while (2 ** (e + 1) <= size) e++;
  const steps = size / 2 ** (e - f.mantissa_bits), below = Math.floor(steps), rest = steps - below;
  const nearest = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  const isNegative = number < 0 || Object.is(number, -0);
  return (isNegative ? half(f) : 0) + Math.min((e + bias(f) - 1) * 2 ** f.mantissa_bits + nearest, largest(f));
};

/** Where a code stands in the order of the numbers, 0 for zero; and back. */
const last = f => largest(f) + (f.has_infinity ? 1 : 0);
const rankOf = (code, f) => (clip(code, f) >= half(f) ? -1 : 1) * (clip(code, f) % half(f));
const codeAt = (rank, f) => rank < 0 ? half(f) - rank : rank + 0;

/** The code of the next larger (1) or smaller (-1) number, or null. */
export const beside = (code, f, direction) => {
  const here = rankOf(code, f), rank = here + direction;
  return Math.abs(here) > last(f) || Math.abs(rank) > last(f) ? null : codeAt(rank, f);
};

export const kindOf = (code, f) => {
  const value = valueOf(code, f);
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : "infinity";
  return value === 0 ? "zero" : fieldsOf(code, f).exponent ? "normal" : "subnormal";
};

/** Decimal digits of precision of this code. */
export const digitsOf = (code, f) => {
  const kind = kindOf(code, f), { mantissa } = fieldsOf(code, f);
  return (kind === "normal" ? f.mantissa_bits + 1 : kind === "subnormal" ? mantissa.toString(2).length : 0) * Math.log10(2);
};

export const relativeError = (number, f) => number ? Math.abs(valueOf(codeOf(number, f), f) - number) / Math.abs(number) : 0;

// ---- in words

export const bitsOf = (code, f) => {
  const { sign, exponent, mantissa } = fieldsOf(code, f);
  return [sign, exponent.toString(2).padStart(f.exponent_bits, "0"), mantissa.toString(2).padStart(f.mantissa_bits, "0")].join(" ");
};

const signOf = x => x < 0 || Object.is(x, -0) ? "−" : "";
const partsOf = scientific => {
  const [mantissa, exponent] = scientific.split("e"), figures = mantissa.replace(".", "").replace(/0+$/, "");
  return [figures, figures ? Number(exponent) : 0];
};
const raised = n => [...String(n)].map(c => c === "-" ? "⁻" : SUPERSCRIPT[c]).join("");

function placed(figures, exponent, digits) {
  const keep = digits ?? (figures.length <= EXACT ? figures.length : ROUNDED);
  if (figures.length > keep) {
    const n = Number(figures.slice(0, keep)) + (figures[keep] >= "5" ? 1 : 0);
    if (n === 10 ** keep) exponent++;
    figures = String(n).replace(/0+$/, "");
  }
  figures ||= "0";
  if (exponent < -5 || exponent >= EXACT) return `${figures[0]}${figures.length > 1 ? "." : ""}${figures.slice(1)} × 10${raised(exponent)}`;
  if (exponent < 0) return "0." + "0".repeat(-exponent - 1) + figures;
  const whole = figures.slice(0, exponent + 1).padEnd(exponent + 1, "0"), rest = figures.slice(exponent + 1);
  return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (rest ? "." : "") + rest;
}

/** x in full where that takes at most 12 digits, otherwise with 9, or with as many as asked for, halves up. */
export const written = (x, digits) => {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "−∞";
  return signOf(x) + placed(...partsOf(Math.abs(x).toExponential(99)), digits);
};

/** x with the fewest digits that tell it from other numbers, as a reader types it. */
export const typed = x => {
  const [figures, exponent] = partsOf(Math.abs(x).toExponential());
  return signOf(x) + placed(figures, exponent, Math.max(1, figures.length));
};

export const percent = share => `${written(100 * share, 3)} %`;

/** Whether written shows all of x. */
const isWhole = x => partsOf(Math.abs(x).toExponential(99))[0].length <= EXACT;

const spokenDigits = n => written(n, 2);
const sup = (...words) => h("sup", {}, ...words);

// ---- the bits: one Tab stop, arrows inside

function bitBoxes(model, get) {
  const el = h("div.fb-bits", { role: "toolbar", "aria-label": "Bits, sign first" });
  let boxes = [], drawn = null, at = 0;
  const flip = (i, to) => {
    const { f, code } = get(), worth = 2 ** (boxes.length - 1 - i), isSet = Math.floor(code / worth) % 2;
    if (to === undefined || to !== isSet) update(model, { code: code + (isSet ? -worth : worth) });
  };
  const stopAt = place => {
    at = place;
    boxes.forEach((box, i) => { box.tabIndex = i === at ? 0 : -1; });
  };
  el.addEventListener("keydown", event => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: boxes.length - 1 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || (to === undefined && !"01".includes(event.key))) return;
    event.preventDefault();
    if (to === undefined) flip(at, Number(event.key));
    else boxes[Math.max(0, Math.min(to, boxes.length - 1))].focus();
  });
  const build = f => {
    const groups = [["sign", 1], ["exponent", f.exponent_bits], ["mantissa", f.mantissa_bits]];
    boxes = [];
    el.replaceChildren(...groups.map(([name, n]) => {
      const mine = range(1, n).map(i => {
        const place = boxes.length, worth = name === "exponent" ? `, worth ${2 ** (n - i)}` : name === "mantissa" ? `, worth 1/${2 ** i}` : "";
        const box = h(`button.fb-bit.fb-${name}`, { type: "button", "aria-label": `${name}${n > 1 ? ` bit ${i} of ${n}` : ""}${worth}`,
          onfocus: () => stopAt(place), onclick: () => { flip(place); box.focus(); } }); // Safari leaves the focus where it is
        boxes.push(box);
        return box;
      });
      return h("div.fb-group", {}, h("div.fb-row", {}, ...mine), h("p.xp-note", {}, n > 1 ? `${name}, ${n} bits` : name));
    }));
  };
  const paint = () => {
    const { f, code } = get(), key = `${f.exponent_bits} ${f.mantissa_bits}`;
    if (drawn !== key) build(f);
    drawn = key;
    boxes.forEach((box, i) => {
      const isSet = Math.floor(code / 2 ** (boxes.length - 1 - i)) % 2;
      box.textContent = String(isSet);
      box.setAttribute("aria-pressed", String(isSet === 1));
    });
    stopAt(Math.min(at, boxes.length - 1));
  };
  return { el, paint };
}

// ---- how the value is made of them

function sumOf(code, f) {
  const { sign, exponent, mantissa } = fieldsOf(code, f), kind = kindOf(code, f), side = sign ? "−1" : "+1";
  if (kind === "NaN" || kind === "infinity") {
    return [h("span", {}, f.has_infinity ? `The top exponent, ${exponent}, is kept: with mantissa 0 for infinity, with any other for NaN.`
      : "The top exponent counts on here, and there is no infinity: only with all exponent and mantissa bits set is a code NaN.")];
  }
  const low = mantissa.toString(2).padStart(f.mantissa_bits, "0"), lead = exponent ? 1 : 0, from = Math.max(exponent, 1);
  const whole = lead + mantissa / 2 ** f.mantissa_bits;
  return [
    product(`${side} times 2 to the power ${from} minus ${bias(f)}, times ${lead}.${low} in binary`,
      `= ${side} × 2`, sup(`${from} − ${bias(f)}`), ` × ${lead}.${low}`, h("sub", {}, "two")),
    product(`${side} times 2 to the power ${signed(from - bias(f))}, times ${written(whole)}`,
      `= ${side} × 2`, sup(signed(from - bias(f))), ` × ${written(whole)}`),
    exponent ? null : h("span.xp-note", {}, `Exponent 0: counted as 1, and ${lead} before the point. ${kind === "zero" ? "Zero." : "A subnormal number."}`),
  ];
}
const signed = n => String(n).replace("-", "−");
const product = (words, ...parts) => h("span", { role: "math", "aria-label": words }, ...parts); // a raised number would be read as a factor

// ---- the lines: all numbers of an 8-bit format, and those around the chosen one

const isSmall = f => half(f) <= 128;
const steps = f => 2 ** f.mantissa_bits;

/** From 0 to 1, zero in the middle: logarithmic outward, with infinity one doubling beyond the largest. */
export const placeOf = (value, f) => {
  const least = Math.log2(valueOf(1, f)) - 1, most = Math.log2(valueOf(largest(f), f)), end = most + (f.has_infinity ? 1 : 0);
  const size = Math.abs(value), reach = size === 0 ? 0 : size === Infinity ? 1 : (Math.log2(size) - least) / (end - least);
  return 0.5 + Math.sign(value) * Math.max(0, Math.min(reach, 1)) / 2;
};

const drawing = () => {
  const path = kind => h(`path.fb-${kind}`, { "vector-effect": "non-scaling-stroke" });
  const parts = { near: path("near"), axis: path("axis"), low: path("low"), tick: path("tick"), power: path("power"), here: path("here") };
  parts.axis.setAttribute("d", "M0 50H1000");
  const svg = h("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" }, ...Object.values(parts));
  const marks = h("div", { "aria-hidden": "true" });
  return { parts, svg, marks };
};
const ticks = (places, size) => places.map(x => `M${(1000 * x).toFixed(2)} ${50 - size}v${2 * size}`).join("");
const mark = (spec, place, words) => h(`span.${spec}`, { style: `left: ${(100 * place).toFixed(3)}%` }, words);
/** At an end a label starts or ends there instead of standing across it. */
const label = (place, words, kind = "fb-label") => mark(place < 0.08 ? `${kind}.fb-first` : place > 0.92 ? `${kind}.fb-last` : kind, place, words);

/** Ranks by how their ticks are drawn: powers of two, other normal numbers, subnormal ones and zero. */
const sorted = (ranks, f) => {
  const of = { low: [], tick: [], power: [] };
  for (const rank of ranks) {
    const size = Math.abs(rank);
    of[size < steps(f) ? "low" : size % steps(f) === 0 ? "power" : "tick"].push(valueOf(codeAt(rank, f), f));
  }
  return of;
};
const TALL = { low: 14, tick: 20, power: 34 };

function wholeLine(model, get) {
  const { parts, svg, marks } = drawing(), keys = uid();
  const el = h("div.fb-line", { role: "slider", tabindex: 0, "aria-label": "Value, along all numbers of the format", "aria-describedby": keys }, svg, marks);
  const caption = h("p.xp-note");
  let drawn = null;
  const walk = to => { const { f } = get(); update(model, { code: codeAt(Math.max(-last(f), Math.min(to, last(f))), f) }); };
  el.addEventListener("keydown", event => {
    const { f, code } = get(), at = Math.max(-last(f), Math.min(rankOf(code, f), last(f)));
    const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, PageUp: at + steps(f), PageDown: at - steps(f),
                 Home: -last(f), End: last(f) }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    walk(to);
  });
  const point = event => {
    const { f } = get(), box = el.getBoundingClientRect(), place = (event.clientX - box.left) / box.width;
    const away = rank => Math.abs(placeOf(valueOf(codeAt(rank, f), f), f) - place);
    walk(range(-last(f), last(f)).reduce((best, rank) => away(rank) < away(best) ? rank : best));
  };
  el.addEventListener("pointerdown", event => { if (event.button === 0) { el.setPointerCapture(event.pointerId); point(event); } });
  el.addEventListener("pointermove", event => { if (el.hasPointerCapture(event.pointerId)) point(event); });
  const paint = () => {
    const { f, code, format } = get(), value = valueOf(code, f), rank = rankOf(code, f), isNaN = Number.isNaN(value);
    if (drawn !== format) {
      const all = sorted(range(-last(f), last(f)), f), most = valueOf(largest(f), f), least = valueOf(steps(f), f);
      for (const kind in TALL) parts[kind].setAttribute("d", ticks(all[kind].map(x => placeOf(x, f)), TALL[kind]));
      const ends = f.has_infinity ? [[Infinity, "∞"], [-Infinity, "−∞"]] : [[most, written(most)], [-most, written(-most)]];
      const inner = [[0, "0"], ...[1, -1].flatMap(side => [[side * least, `${side < 0 ? "−" : ""}2${raised(Math.log2(least))}`], [side, written(side)]])];
      const isSpare = x => x !== 0 && Math.abs(placeOf(x, f) - 0.5) < 0.08; // on a phone its label would stand on that of zero
      marks.replaceChildren(...[...inner, ...ends].map(([x, words]) => label(placeOf(x, f), words, isSpare(x) ? "fb-label.fb-spare" : "fb-label")));
      caption.textContent = `All ${2 * largest(f) + 1} finite numbers of ${format}, doubling by doubling away from zero. `
        + `Tall: powers of two. Short and pale: subnormal numbers, below 2${raised(Math.log2(least))}.`;
      drawn = format;
    }
    parts.here.setAttribute("d", isNaN ? "" : ticks([placeOf(value, f)], 46));
    const now = { "aria-valuemin": -last(f), "aria-valuemax": last(f), "aria-valuenow": Math.max(-last(f), Math.min(rank, last(f))),
                  "aria-valuetext": isNaN ? "NaN, which is on no line" : written(value) };
    for (const key in now) el.setAttribute(key, now[key]);
  };
  const help = h("p.xp-note.xp-keys", { id: keys }, "Click or drag, or use the arrow keys; Page Up and Page Down go to the next doubling, Home and End to the ends.");
  return { els: [caption, el, help], paint };
}

function closeUp(model, get) {
  const { parts, svg, marks } = drawing(), el = h("div.fb-line.fb-close", {}, svg, marks), caption = h("p.xp-note");
  const gaps = slider(model, { key: "zoom", label: "Gaps to each side", stops: range(2, 10), show: z => String(2 ** z) });
  const paint = () => {
    const { f, code, number, zoom } = get(), value = valueOf(code, f), isThere = Number.isFinite(value);
    el.hidden = !isThere;
    if (!isThere) {
      caption.textContent = "Around this code there is nothing to show: it is no finite number.";
      return;
    }
    const gap = 2 ** (Math.max(fieldsOf(code, f).exponent, 1) - bias(f) - f.mantissa_bits), reach = gap * 2 ** zoom;
    const place = x => 0.5 + (x - value) / reach / 2, isIn = x => Math.abs(x - value) <= reach;
    const all = sorted(range(-largest(f), largest(f)).filter(rank => isIn(valueOf(codeAt(rank, f), f))), f);
    for (const kind in TALL) parts[kind].setAttribute("d", ticks(all[kind].map(place), TALL[kind]));
    parts.here.setAttribute("d", ticks([0.5], 46));
    const [from, to] = [-1, 1].map(side => {
      const there = beside(code, f, side), other = there === null ? Infinity : valueOf(there, f);
      return Number.isFinite(other) ? Math.max(0, Math.min(place((value + other) / 2), 1)) : (1 + side) / 2;
    });
    parts.near.setAttribute("d", `M${1000 * from} 50H${1000 * to}`);
    marks.replaceChildren(label(0, written(value - reach, 4)), label(0.5, written(value), "fb-label.fb-now"), label(1, written(value + reach, 4)),
      ...isIn(number) ? [mark("fb-yours", place(number), ""), label(place(number), "yours", "fb-label.fb-above")] : []);
    caption.textContent = "Around the value, to scale. What lies in the band is rounded to it"
      + `${isIn(number) ? "; the ring is your number" : ""}.`;
  };
  return { els: [h("div.fb-zoom", {}, caption, gaps.el), el], paint, stop: gaps.stop };
}

// ---- the whole

function render({ model, el }) {
  const formats = model.get("formats");
  const get = () => {
    const s = Object.fromEntries(STATE.map(key => [key, model.get(key)])), f = formats[s.format];
    return { ...s, f, code: clip(s.code, f) };
  };
  // a number that was typed is rounded anew in another format; bits that were set keep their value as well as they can
  const turnTo = format => {
    const { f, code, number } = get(), to = formats[format], value = valueOf(code, f);
    const infinite = to.has_infinity ? largest(to) + 1 : largest(to);
    const moved = codeOf(number, f) === code ? codeOf(number, to) : Number.isFinite(value) ? codeOf(value, to)
      : (rankOf(code, f) < 0 ? half(to) : 0) + (Number.isNaN(value) ? half(to) - 1 : infinite);
    update(model, { format, code: moved });
  };
  const format = choice(model, { label: "Format", options: Object.keys(formats).map(name => [name, name]), watching: ["format"],
    get: () => model.get("format"), set: turnTo });

  const id = uid(), help = uid();
  const input = h("input", { id, type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false", "aria-describedby": help,
    oninput: () => take(), onblur: () => paint(true) });
  const advice = h("p.xp-note", { id: help }, "Typing sets the bits.");
  const take = () => {
    const text = input.value.trim().replace("−", "-").replace(",", "."), number = Number(text), isGood = text !== "" && Number.isFinite(number);
    input.setAttribute("aria-invalid", String(!isGood));
    advice.textContent = isGood ? "Typing sets the bits." : "Not a decimal number, such as −0.07 or 3e5.";
    if (isGood) update(model, { number, code: codeOf(number, get().f) });
  };
  const field = h("div.fb-field", {}, h("label", { for: id }, "Your number"), input, advice);

  const boxes = bitBoxes(model, get), whole = wholeLine(model, get), close = closeUp(model, get), line = readout();
  const value = h("p.fb-value"), sum = h("p.fb-sum");
  const lines = h("div.fb-lines", {}, ...whole.els, ...close.els);

  const facts = h("caption"), sides = ["Next above", "This one", "Next below"].map(words => ({ words, cells: [h("td"), h("td")] }));
  const around = tabular(facts, ["Neighbours", "Number", "Gap to this one"],
    sides.map(({ words, cells }, i) => h(i === 1 ? "tr.fb-chosen" : "tr", {}, h("th", { scope: "row" }, words), ...cells)));
  const caption = h("caption"), rows = Object.keys(formats).map(name => {
    const own = range(1, 3).map(() => h("td"));
    return { name, own, row: h("tr", {}, h("th", { scope: "row" }, name), ...own) };
  });
  const table = tabular(caption, ["Format", "Digits", "Rounded to", "Relative error"], rows.map(one => one.row));

  const paint = (isLeft = false) => {
    const s = get(), { f, code } = s, here = valueOf(code, f), kind = kindOf(code, f);
    if (isLeft || input !== document.activeElement) { // somebody types there
      input.value = typed(s.number).replaceAll(",", "").replace(/ × 10(.*)/, () => `e${s.number.toExponential().split("e")[1].replace("+", "")}`);
      input.setAttribute("aria-invalid", "false");
      advice.textContent = "Typing sets the bits.";
    }
    el.classList.toggle("fb-eight", isSmall(f));
    boxes.paint();
    value.textContent = `${Number.isFinite(here) && !isWhole(here) ? "≈" : "="} ${written(here)}`;
    sum.replaceChildren(...sumOf(code, f).filter(Boolean));
    lines.hidden = !isSmall(f);
    if (isSmall(f)) for (const part of [whole, close]) part.paint();

    const [below, above] = [-1, 1].map(side => beside(code, f, side)).map(there => there === null ? null : valueOf(there, f));
    const gap = other => other === null || !Number.isFinite(here - other) ? "–" : written(Math.abs(here - other));
    [above, here, below].forEach((x, i) => {
      sides[i].cells[0].textContent = x === null ? "none" : written(x);
      sides[i].cells[1].textContent = i === 1 ? "" : gap(x);
    });
    const digits = (f.mantissa_bits + 1) * Math.log10(2);
    facts.textContent = `${s.format}: largest ${written(valueOf(largest(f), f))}, smallest normal ${written(valueOf(steps(f), f))}, `
      + `smallest of all ${written(valueOf(1, f))}; ${spokenDigits(digits)} decimal digits`
      + `${kind === "subnormal" ? `, here ${spokenDigits(digitsOf(code, f))}` : ""}.`;

    for (const { name, own, row } of rows) {
      const g = formats[name];
      [spokenDigits((g.mantissa_bits + 1) * Math.log10(2)), written(valueOf(codeOf(s.number, g), g)), percent(relativeError(s.number, g))]
        .forEach((words, i) => { own[i].textContent = words; });
      row.classList.toggle("fb-chosen", name === s.format);
    }
    caption.textContent = `${typed(s.number)}, rounded to nearest, ties to even; beyond the largest, the largest`;
    const rounded = valueOf(codeOf(s.number, f), f), isOver = Math.abs(s.number) > valueOf(largest(f), f);
    const name = { NaN: "not a number", infinity: here > 0 ? "infinity" : "minus infinity", zero: here === 0 && signOf(here) ? "minus zero" : "zero" }[kind]
      ?? `${written(here)}, ${kind}`;
    const near = kind === "NaN" || kind === "infinity" ? "" : gap(below) === gap(above) ? ` Its neighbours are ${gap(below)} away.`
      : gap(below) === "–" || gap(above) === "–" ? ` Nothing finite lies ${gap(below) === "–" ? "below" : "above"}; the other neighbour is `
        + `${gap(gap(below) === "–" ? above : below)} away.`
      : ` Its neighbours are ${gap(below)} below and ${gap(above)} above.`;
    line.say(`${s.format} ${bitsOf(code, f)} is ${name}.${near} `
      + `${typed(s.number)} ${isOver ? "is beyond the largest and becomes" : rounded === s.number ? "is held exactly:" : "is rounded to"} ${written(rounded)}, `
      + `a relative error of ${percent(relativeError(s.number, f))}.`);
  };

  frame(el, "Which number do these bits stand for?",
    h("div.xp-controls.xp-row", {}, format.el, field),
    h("div.fb-top", {}, boxes.el, h("div.fb-result", {}, value, sum)),
    h("p.xp-note.xp-keys", {}, "Click a bit; or Tab to the bits, move with the arrow keys, and press 0, 1 or Space."),
    h("div.fb-tables", {}, around), lines, h("div.fb-tables", {}, table), ...line.els);
  paint();
  const stops = [format.stop, close.stop, line.stop, watch(model, STATE, () => paint())];
  return () => stops.forEach(stop => stop());
}

export default { render };
