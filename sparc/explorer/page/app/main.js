// The page: finds the view of the link, shows it, keeps the place, and listens to the keys that work everywhere.
"use strict";
(() => {
  const { h } = Dom;
  const views = {
    latents: LatentsView,
    latent: LatentView,
    compare: CompareView,
    map: MapView,
    samples: SamplesView,
    sample: SampleView,
    bias: BiasView,
    run: RunView,
  };
  const main = document.getElementById("view");
  const places = new Map(); // fragment -> how far it was scrolled
  let atTop = false; // the next view begins at its top: it was chosen in the menu
  let leave = () => {};
  let turn = 0;

  const markTab = (view) => {
    const tab = { latent: "latents", sample: "samples" }[view] ?? view;
    document.querySelectorAll("#tabs a").forEach((link) => {
      if (link.dataset.view !== tab) return link.removeAttribute("aria-current");
      link.setAttribute("aria-current", "page");
      tabs.scrollLeft = link.offsetLeft - tabs.offsetLeft - (tabs.clientWidth - link.offsetWidth) / 2;
      return undefined;
    });
    shade();
  };

  // Where the menu goes on beyond its edges, the style sheet lets it fade out.
  const tabs = document.getElementById("tabs");
  const shade = () => {
    tabs.classList.toggle("more-before", tabs.scrollLeft > 1);
    tabs.classList.toggle("more-after", tabs.scrollLeft + tabs.clientWidth < tabs.scrollWidth - 1);
  };
  tabs.addEventListener("scroll", shade, { passive: true });
  window.addEventListener("resize", shade);

  document.querySelector(".masthead").addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (link.hash === location.hash) window.scrollTo(0, 0);
    else atTop = true;
  });

  const failed = (error) => main.replaceChildren(h("p.failed", { role: "alert" }, error.message));

  const open = async (fragment, moved) => {
    const mine = (turn += 1);
    const { view, id, parameters } = Links.read(fragment);
    const place = atTop ? 0 : (places.get(fragment) ?? 0);
    atTop = false;
    const shown = Object.hasOwn(views, view) ? views[view] : LatentsView;
    leave();
    leave = () => {};
    Pictures.release(main);
    main.replaceChildren();
    main.className = `view-${view}`;
    markTab(view);
    try {
      const name = shown.title(id);
      document.title = `${name} · ${Dictionary.run.name} · SPARC explorer`;
      const end = (await shown.show(main, id, parameters)) ?? (() => {});
      if (mine !== turn) return end();
      leave = end;
    } catch (error) {
      if (mine === turn) failed(error);
    }
    if (mine === turn) {
      window.scrollTo(0, place);
      if (moved) main.focus({ preventScroll: true });
    }
    return undefined;
  };

  window.addEventListener("hashchange", (event) => {
    places.set(new URL(event.oldURL).hash, window.scrollY); // the old view still stands
    open(location.hash, true);
  });

  const typing = (target) => target.closest("input, select, textarea");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && typing(event.target)) return event.target.blur();
    if (typing(event.target)) return;
    const field = document.querySelector("main input[type=search]");
    if (event.key === "/" && field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
    document.querySelector(`main a[data-key="${CSS.escape(event.key)}"]`)?.click();
  });

  const button = document.getElementById("theme");
  const label = () => {
    const other = Theme.now() === "dark" ? "light" : "dark";
    button.textContent = other === "light" ? "☀" : "☾";
    button.setAttribute("aria-label", `Switch to the ${other} colours`);
    button.title = `Switch to the ${other} colours`;
  };
  button.addEventListener("click", Theme.toggle);
  window.addEventListener("themechange", label);
  label();

  history.scrollRestoration = "manual";
  Dictionary.load()
    .then(() => {
      document.getElementById("run-name").textContent = Dictionary.run.name;
      return open(location.hash, false);
    })
    .catch(failed);
})();
