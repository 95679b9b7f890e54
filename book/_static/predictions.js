// Predictions: the reader writes a guess, it is kept in this browser alone, and stands beside what was found.
// Without this script the page still has the question and the fold with the answer.
(() => {
  const read = key => { try { return localStorage.getItem("prediction:" + key); } catch { return null; } };
  const keep = (key, guess) => { try { localStorage.setItem("prediction:" + key, guess); } catch { /* a private window: the page shows it still */ } };
  const number = text => parseFloat(text.replace(/[\s,_]/g, "").replace("−", "-"));

  const distance = (guess, answer) => {
    const ratio = number(guess) / number(answer);
    if (!(ratio > 0)) return "";
    if (ratio > 0.8 && ratio < 1.25) return " Close.";
    return ratio > 1 ? ` ${+ratio.toPrecision(2)} times too high.` : ` ${+(1 / ratio).toPrecision(2)} times too low.`;
  };

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  document.querySelectorAll(".guess").forEach((place, i) => {
    const { key, answer, unit } = place.dataset;
    const isNumber = "number" in place.dataset;
    const fold = place.parentElement.querySelector("details.what-we-found");
    const id = "guess-" + (i + 1);
    const input = element("input", { id, autocomplete: "off", inputMode: isNumber ? "decimal" : "text" });
    const button = element("button", { type: "submit" }, "Write it down");
    const reply = element("p", { className: "reply" });
    reply.setAttribute("aria-live", "polite");
    const form = element("form", {}, element("label", { htmlFor: id }, "Your guess"), input, ...(isNumber && unit ? [element("span", {}, unit)] : []), button);

    const show = guess => {
      const said = isNumber ? `You wrote ${guess}${unit && " " + unit}; we found ${answer}.${distance(guess, answer)}` : `You wrote: ${guess}`;
      reply.replaceChildren(said + " ", element("span", { className: "kept" }, "Your guess stays in this browser."));
      button.textContent = "Change it";
      if (fold) fold.open = true;
    };
    form.addEventListener("submit", event => {
      event.preventDefault();
      const guess = input.value.trim();
      if (!guess) return;
      keep(key, guess);
      show(guess);
    });
    place.replaceChildren(form, reply);
    const kept = read(key);
    if (kept) { input.value = kept; show(kept); }
  });
})();
