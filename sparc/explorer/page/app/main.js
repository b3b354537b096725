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
  let leave = () => {};
  let turn = 0;

  const markTab = (view) => {
    const tab = { latent: "latents", sample: "samples" }[view] ?? view;
    document.querySelectorAll("#tabs a").forEach((link) => {
      if (link.dataset.view !== tab) return link.removeAttribute("aria-current");
      link.setAttribute("aria-current", "page");
      return link.scrollIntoView({ block: "nearest", inline: "center" });
    });
  };

  const failed = (error) => main.replaceChildren(h("p.failed", { role: "alert" }, error.message));

  const open = async (fragment, moved) => {
    const mine = (turn += 1);
    const { view, id, parameters } = Links.read(fragment);
    const place = places.get(fragment) ?? 0;
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
