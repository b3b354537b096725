// Elements. Text becomes a text node, always: no data reach an HTML parser.
"use strict";
const Dom = (() => {
  // h("div.card", {href, class, on: {click}, style: {...}}, ...children): an element with its children.
  const h = (tag, ...rest) => {
    const [name, ...classes] = tag.split(".");
    const element = document.createElement(name);
    if (classes.length) element.className = classes.join(" ");
    const isProperties =
      rest.length &&
      rest[0] !== null &&
      typeof rest[0] === "object" &&
      !(rest[0] instanceof Node) &&
      !Array.isArray(rest[0]);
    const properties = isProperties ? rest.shift() : {};
    for (const [key, value] of Object.entries(properties)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "on") for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
      else if (key === "style")
        for (const [property, setting] of Object.entries(value)) element.style.setProperty(property, setting);
      else if (key === "value") element.value = value;
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...rest.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return element;
  };

  // Text from the data: its direction is its own, and it cannot turn the text around it.
  const said = (text, tag = "bdi") => h(tag, { dir: "auto" }, text);

  // Changes the one text of an element, without a new text node.
  const write = (element, text) => {
    if (element.firstChild) {
      if (element.firstChild.data !== text) element.firstChild.data = text;
    } else element.append(text);
  };

  // Has a child within a parent, before another or last, or not at all.
  const keep = (parent, child, wanted, before = null) => {
    if (!wanted) return void child.remove();
    return child.parentNode === parent ? undefined : void parent.insertBefore(child, before);
  };

  const announce = (text) => {
    document.getElementById("live").textContent = text;
  };

  const debounce = (wait, action) => {
    let timer;
    return (...values) => {
      clearTimeout(timer);
      timer = setTimeout(() => action(...values), wait);
    };
  };

  const select = (label, options, chosen, change) => {
    const field = h(
      "select",
      { on: { change: () => change(field.value) } },
      options.map(([value, text]) => h("option", { value, selected: String(value) === String(chosen) }, text)),
    );
    return h("label.field", h("span", label), field);
  };

  // A table with a caption for those who cannot see it, and cells that may be elements. On a narrow screen its rows become
  // lines, in which each cell says its column; the roles keep it a table for screen readers then.
  const table = (caption, heads, rows) => {
    const columns = heads.map((head) => h("th", { scope: "col", role: "columnheader" }, head));
    const cellOf = (cell, column) =>
      column === 0
        ? h("th", { scope: "row", role: "rowheader", "data-head": /^\d+$/.test(cell) ? columns[0].textContent : null }, cell)
        : h("td", { role: "cell", "data-head": columns[column].textContent }, cell);
    return h(
      "div.scroll",
      { tabindex: "0", role: "region", "aria-label": caption },
      h(
        "table",
        { role: "table" },
        h("caption.unseen", caption),
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns)),
        h(
          "tbody",
          { role: "rowgroup" },
          rows.map((cells) => h("tr", { role: "row" }, cells.map(cellOf))),
        ),
      ),
    );
  };

  return { h, said, write, keep, announce, debounce, select, table };
})();
