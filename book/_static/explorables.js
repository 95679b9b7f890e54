// Runs the explorables of a page without a kernel. The committed output is
//   <div class="explorable" data-explorable="NAME" data-state='{…}'> a plain table </div>
// and explorables/NAME.js puts the module that anywidget runs live into window.explorables.NAME.
(() => {
  const folder = new URL("explorables/", document.currentScript.src);

  // The part of anywidget's model that an explorable may use. Nobody else listens, so there is nothing to save.
  const makeModel = state => {
    const listeners = new Map();
    return {
      get: key => state[key],
      set(key, value) {
        if (Object.is(state[key], value)) return;
        state[key] = value;
        for (const listener of [...(listeners.get(`change:${key}`) ?? [])]) listener();
      },
      on: (event, listener) => listeners.set(event, (listeners.get(event) ?? new Set()).add(listener)),
      off: (event, listener) => listeners.get(event)?.delete(listener),
      save_changes() {},
    };
  };

  const loading = {};
  const load = name => loading[name] ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(`${name}.js`, folder);
    script.onload = () => resolve(window.explorables[name]);
    script.onerror = () => reject(new Error(`cannot load ${script.src}`));
    document.head.append(script);
  });

  const start = async place => {
    const stage = document.createElement("div");
    try {
      const piece = await load(place.dataset.explorable);
      piece.render({ model: makeModel(JSON.parse(place.dataset.state)), el: stage });
      place.replaceChildren(stage);  // only now: if anything above fails, the table stays
      place.dataset.live = "yes";
    } catch (error) {
      console.error(error);
    }
  };

  // all at once, not when they come into view: they are small, print whole, and nothing moves under the reader later
  document.querySelectorAll(".explorable").forEach(start);
})();
