// Draws the figures of a page when they come into view, with one plotly.js for the whole site, in the colours of the theme.
// A figure is stored in the light colours of tokens.css; each of them becomes the same token of the theme that is on.
(() => {
  const figures = [...document.querySelectorAll(".bookfig")];
  if (!figures.length) return;
  const TOKENS = ["paper", "raised", "ink", "muted", "rule", "hair", "dense", "attn", "mla", "moe", "mtp", "fp8", "rl", "distill"];
  const here = document.currentScript.src;
  const root = document.documentElement;
  const valueOf = (element, token) => getComputedStyle(element).getPropertyValue("--" + token).trim();

  const lightProbe = document.createElement("span");
  lightProbe.dataset.theme = "light";
  lightProbe.hidden = true;
  document.body.append(lightProbe);

  let loading;
  const plotly = () => loading ||= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL("vendor/plotly.min.js", here).href;
    script.onload = () => resolve(window.Plotly);
    script.onerror = reject;
    document.head.append(script);
  });

  const isNarrow = () => innerWidth < 700;

  const themed = stored => {
    const colors = Object.fromEntries(TOKENS.map(t => [valueOf(lightProbe, t), valueOf(root, t)]));
    const figure = JSON.parse(stored, (key, value) => typeof value === "string" && value in colors ? colors[value] : value);
    const { title, sliders, updatemenus, ...layout } = figure.layout;   // these stand outside as text and controls: see frames
    const margin = { ...layout.margin, t: 12, ...(isNarrow() ? { l: Math.min(52, layout.margin.l) } : {}) };
    const font = { ...layout.font, size: isNarrow() ? 12 : 14 };
    const height = layout.height - layout.margin.t + 12;
    return { ...figure, layout: { ...layout, margin, font, height } };
  };

  const config = () => ({ responsive: true, displaylogo: false, displayModeBar: isNarrow() ? false : "hover",
                          modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });

  // plotly's own slider is a picture of one, out of the keyboard's reach: one <input> and one button stand in for it
  const frames = (box, plot, stored) => {
    const slider = stored.layout.sliders?.[0];
    if (!slider) return;
    const prefix = slider.currentvalue?.prefix ?? "";
    const row = document.createElement("p");
    row.className = "bookfig-frames";
    row.innerHTML = '<button type="button">Play</button><label><span></span><output></output> <input type="range" min="0" step="1" value="0"></label>';
    const [button, label, output, input] = ["button", "span", "output", "input"].map(name => row.querySelector(name));
    label.textContent = prefix;
    input.max = slider.steps.length - 1;
    const go = () => {
      const step = slider.steps[input.value];
      output.textContent = step.label;
      input.setAttribute("aria-valuetext", prefix + step.label);
      return window.Plotly.animate(plot, ...step.args);
    };
    let timer = null;
    const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; };
    const advance = () => { if (+input.value === +input.max) return stop(); input.value = +input.value + 1; go(); };
    input.addEventListener("input", () => { stop(); go(); });
    button.addEventListener("click", () => {
      if (timer) return stop();
      if (+input.value === +input.max) { input.value = 0; go(); }
      timer = setInterval(advance, 700);
      button.textContent = "Pause";
    });
    output.textContent = slider.steps[0].label;
    input.setAttribute("aria-valuetext", prefix + slider.steps[0].label);
    box.append(row);
  };

  const draw = async box => {
    if (box.dataset.state) return;
    box.dataset.state = "loading";
    const Plotly = await plotly();
    const figure = themed(box.querySelector("script").textContent);
    const plot = box.querySelector(".bookfig-plot");
    await Plotly.newPlot(plot, figure.data, figure.layout, config());
    if (figure.frames) {
      await Plotly.addFrames(plot, figure.frames);
      frames(box, plot, JSON.parse(box.querySelector("script").textContent));
    }
    box.dataset.state = "ready";
  };

  const redraw = async box => {
    if (box.dataset.state !== "ready") return;
    const figure = themed(box.querySelector("script").textContent);
    const plot = box.querySelector(".bookfig-plot");
    await window.Plotly.react(plot, figure.data, figure.layout, config());
    if (!figure.frames) return;
    await window.Plotly.addFrames(plot, figure.frames, figure.frames.map((_, i) => i));    // the same places, the other colours
    box.querySelector(".bookfig-frames input")?.dispatchEvent(new Event("input"));
  };

  const inView = new IntersectionObserver(entries => entries.forEach(e => e.isIntersecting && draw(e.target)), { rootMargin: "600px" });
  figures.forEach(box => inView.observe(box));
  new MutationObserver(() => figures.forEach(redraw)).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
})();
