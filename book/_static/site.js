// Small repairs of the theme. Everything on the page works without them.
(() => {
  const all = selector => [...document.querySelectorAll(selector)];

  // the theme hides a right-hand contents list that we do not have: give its script something to hide
  if (!document.querySelector("div.bd-sidebar-secondary")) {
    document.body.append(Object.assign(document.createElement("div"), { className: "bd-sidebar-secondary", hidden: true }));
  }

  const inPlace = () => {
    // names that match what is seen, and a landmark for the sidebar
    all(".search-button-field").forEach(button => button.setAttribute("aria-label", "Search Ctrl+K"));
    all(".theme-switch-button").forEach(button => {
      button.setAttribute("aria-label", "Light, dark or system colours");
      button.querySelectorAll("i, svg").forEach(icon => { icon.removeAttribute("title"); icon.setAttribute("aria-hidden", "true"); });
    });
    all("summary[aria-label]").forEach(summary => summary.removeAttribute("aria-label"));
    all("#pst-primary-sidebar").forEach(bar => { bar.setAttribute("role", "complementary"); bar.setAttribute("aria-label", "Book"); });

    all("aside.margin").forEach(note => note.setAttribute("role", "note"));

    // what scrolls by itself is reached by keyboard
    all(".bd-article pre, .cell_output, .pst-scrollable-table-container, .bd-article div.math").forEach(box => {
      if (box.scrollWidth > box.clientWidth + 2) box.tabIndex = 0;
    });

    // the page's own contents open under its entry in the sidebar
    const here = all(".bd-sidebar-primary li.current.active").pop();
    const contents = document.querySelector(".bd-sidebar-primary #pst-page-toc-nav");
    if (here && contents) {
      here.append(contents);
      contents.removeAttribute("aria-labelledby");
      contents.setAttribute("aria-label", "On this page");
    }
  };

  // paper is light, and its folds are open
  const root = document.documentElement;
  addEventListener("beforeprint", () => {
    all("details.fold:not([open])").forEach(fold => { fold.open = true; fold.dataset.opened = ""; });
    root.dataset.themeOnScreen = root.dataset.theme;
    root.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    all("details.fold[data-opened]").forEach(fold => { fold.open = false; delete fold.dataset.opened; });
    root.dataset.theme = root.dataset.themeOnScreen;
  });

  if (document.readyState === "loading") addEventListener("DOMContentLoaded", inPlace); else inPlace();
})();
