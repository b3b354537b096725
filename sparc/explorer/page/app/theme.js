// The colour scheme: that of the system, or the one that the reader chose. Loaded before the first paint.
"use strict";
const Theme = (() => {
  const key = "sparc-explorer-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null; // some browsers keep no storage for files
    }
  };
  const now = () => document.documentElement.dataset.theme;
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    window.dispatchEvent(new Event("themechange"));
  };
  const choose = (theme) => {
    try {
      localStorage.setItem(key, theme);
    } catch {
      // the choice then lasts as long as the page
    }
    apply(theme);
  };
  apply(stored() ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => stored() ?? apply(system.matches ? "dark" : "light"));
  return { now, toggle: () => choose(now() === "dark" ? "light" : "dark") };
})();
