// The ledger's filters. The page holds every claim without this script; with it, one chooses. The address keeps the choice:
// ledger.html#verdict=wrong&document=cascade&q=gpu, and #c60 opens one claim.
(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const plain = text => text.normalize("NFKD").replace(/\p{M}/gu, "").replaceAll("’", "'").toLowerCase();
  const entries = [...document.querySelectorAll(".entry")].map(box => ({ box, text: plain(box.textContent) }));
  const fields = ["q", "verdict", "subject", "document", "chapter"];
  const status = form.querySelector("[role=status]");
  const foldAll = form.querySelector(".fold-all");
  const chosen = () => Object.fromEntries(fields.map(name => [name, form.elements[name].value.trim()]));
  const shown = () => entries.filter(({ box }) => !box.hidden).map(({ box }) => box);

  const fits = ({ box, text }, { q, ...by }) =>
    plain(q).split(/\s+/).every(word => text.includes(word)) &&
    Object.entries(by).every(([name, value]) => !value || box.dataset[name].split(" ").includes(value));

  const sayFolds = () => { foldAll.textContent = shown().some(box => !box.open) ? "Open what is shown" : "Close what is shown"; };

  let saying;
  const filter = () => {
    const by = chosen();
    for (const entry of entries) entry.box.hidden = !fits(entry, by);
    const n = shown().length;
    const said = n === entries.length ? `All ${n} claims.`
      : n ? `${n} of ${entries.length} claims.` : "No claim fits. Take a filter back, or show all.";
    clearTimeout(saying);    // while somebody types, only the last count is spoken
    saying = setTimeout(() => { status.textContent = said; }, 250);
    form.querySelector("[type=reset]").disabled = n === entries.length;
    foldAll.disabled = n === 0;
    sayFolds();
  };

  const keep = () => {
    const set = Object.entries(chosen()).filter(([, value]) => value);
    history.replaceState(null, "", set.length ? "#" + new URLSearchParams(set) : location.pathname + location.search);
  };

  const set = by => { for (const name of fields) form.elements[name].value = by[name] ?? ""; filter(); };

  const follow = isClick => {
    const hash = decodeURIComponent(location.hash.slice(1));
    if (/^c\d\d$/i.test(hash)) {
      const box = document.getElementById(hash.toLowerCase());
      if (!box) return;
      if (box.hidden) set({});
      box.open = true;
      box.querySelector("summary").focus({ preventScroll: true });
      box.scrollIntoView();
    } else if (hash.includes("=")) {
      set(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
      form.scrollIntoView();
      if (isClick) status.focus({ preventScroll: true });
    } else if (isClick && !hash) set({});
  };

  form.hidden = false;
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("input", () => { filter(); keep(); });
  form.addEventListener("reset", () => setTimeout(() => { filter(); keep(); form.elements.q.focus(); }));
  foldAll.addEventListener("click", () => {
    const open = shown().some(box => !box.open);
    for (const box of shown()) box.open = open;
    sayFolds();
  });
  for (const { box } of entries) box.addEventListener("toggle", sayFolds);
  addEventListener("hashchange", () => follow(true));
  addEventListener("beforeprint", () => shown().forEach(box => { if (!box.open) { box.open = true; box.dataset.opened = ""; } }));
  addEventListener("afterprint", () => entries.forEach(({ box }) => { if ("opened" in box.dataset) { box.open = false; delete box.dataset.opened; } }));
  filter();
  follow(false);
})();
