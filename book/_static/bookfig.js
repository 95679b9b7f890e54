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
    const { title, ...layout } = figure.layout;   // the title stands above as text, where it can wrap and be read aloud
    const margin = { ...layout.margin, t: 12, ...(isNarrow() ? { l: Math.min(52, layout.margin.l) } : {}) };
    const font = { ...layout.font, size: isNarrow() ? 12 : 14 };
    const height = layout.height - layout.margin.t + 12;
    return { ...figure, layout: { ...layout, margin, font, height } };
  };

  const config = () => ({ responsive: true, displaylogo: false, displayModeBar: isNarrow() ? false : "hover",
                          modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });

  const draw = async box => {
    if (box.dataset.state) return;
    box.dataset.state = "loading";
    const Plotly = await plotly();
    const figure = themed(box.querySelector("script").textContent);
    const plot = box.querySelector(".bookfig-plot");
    await Plotly.newPlot(plot, figure.data, figure.layout, config());
    if (figure.frames) await Plotly.addFrames(plot, figure.frames);
    box.dataset.state = "ready";
  };

  const redraw = box => {
    if (box.dataset.state !== "ready") return;
    const figure = themed(box.querySelector("script").textContent);
    window.Plotly.react(box.querySelector(".bookfig-plot"), figure.data, figure.layout, config());
  };

  const inView = new IntersectionObserver(entries => entries.forEach(e => e.isIntersecting && draw(e.target)), { rootMargin: "600px" });
  figures.forEach(box => inView.observe(box));
  new MutationObserver(() => figures.forEach(redraw)).observe(root, { attributes: true, attributeFilter: ["data-theme"] });
})();
