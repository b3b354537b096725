// The filters beside the latents: states, agreement, purity, frequency, streams, label, branch and name.
"use strict";
const FilterPanel = (() => {
  const { h, select } = Dom;

  const slider = (label, key, parameters, change) => {
    const shown = h("output", parameters[key] || "any");
    const input = h("input", {
      type: "range",
      min: "0",
      max: "0.95",
      step: "0.05",
      value: parameters[key] ?? "0",
      on: {
        input: () => {
          shown.textContent = Number(input.value) ? input.value : "any";
          change({ [key]: Number(input.value) ? input.value : "" });
        },
      },
    });
    return h("label.field", h("span", label, " ", shown), input);
  };

  const shares = [
    ["", "any"],
    ["0.001", "0.1 %"],
    ["0.005", "0.5 %"],
    ["0.01", "1 %"],
    ["0.02", "2 %"],
    ["0.05", "5 %"],
    ["0.1", "10 %"],
    ["0.3", "30 %"],
  ];

  const labelField = (parameters, change) => {
    const { name, named_by: by } = Dictionary.columns;
    const labels = [...new Set(name.filter((text, latent) => text !== null && by[latent] === 1))].sort((a, b) =>
      a.localeCompare(b),
    );
    if (!labels.length) return null;
    const input = h("input", {
      type: "text",
      list: "labels",
      value: parameters.label ?? "",
      placeholder: "any",
      dir: "auto",
      on: { change: () => change({ label: labels.includes(input.value) ? input.value : "" }) },
    });
    return h(
      "label.field",
      h("span", "Label"),
      input,
      h(
        "datalist",
        { id: "labels" },
        labels.map((value) => h("option", { value })),
      ),
    );
  };

  const make = (parameters, change, redraw) => {
    const { run, states, streams, columns } = Dictionary;
    const chosen = parameters.state ? parameters.state.split(",") : ["shared", "some", "duplicate"];
    const counts = states.map((_, state) => columns.state.filter((value) => value === state).length);
    const toggle = () =>
      change({ state: chosen.length === 3 && !chosen.includes("dead") ? "" : chosen.join(",") || "none" });
    const possible = (state) => streams.length > 1 || state.name !== "some";
    const stateBoxes = states.map((state, index) => {
      if (!possible(state)) return null;
      const box = h("input", {
        type: "checkbox",
        checked: chosen.includes(state.name),
        on: {
          change: () => {
            if (box.checked) chosen.push(state.name);
            else chosen.splice(chosen.indexOf(state.name), 1);
            toggle();
          },
        },
      });
      const only = h(
        "button.only",
        {
          type: "button",
          title: `Show only: ${state.label}`,
          "aria-label": `Show only: ${state.label}, ${Format.plural(counts[index], "latent")}`,
          on: {
            click: () => {
              change({ state: state.name });
              redraw();
            },
          },
        },
        Format.count(counts[index]),
      );
      return h("div.check", { title: state.read }, h("label", box, state.label), only);
    });
    const streamOptions = (empty) => [["", empty], ...streams.map((name) => [name, name])];
    return h(
      "details.filters",
      { open: window.matchMedia("(min-width: 62rem)").matches },
      h("summary", "Filters"),
      h(
        "div.fields",
        h("fieldset", h("legend", "State"), stateBoxes),
        streams.length > 1 ? slider("Agreement at least", "agreement", parameters, change) : null,
        run.has.labels ? slider("Purity at least", "purity", parameters, change) : null,
        select("Fires in at least", shares, parameters.min ?? "", (min) => change({ min })),
        select("Fires in at most", shares, parameters.max ?? "", (max) => change({ max })),
        streams.length > 1
          ? select("Fires in stream", streamOptions("any"), parameters.in ?? "", (value) => change({ in: value }))
          : null,
        streams.length > 1
          ? select("Never fires in stream", streamOptions("–"), parameters.not ?? "", (value) => change({ not: value }))
          : null,
        labelField(parameters, change),
        run.branches.length
          ? select(
              "Branch",
              [["", "any"], ...run.branches.map((name) => [name, name])],
              parameters.branch ?? "",
              (branch) => change({ branch }),
            )
          : null,
        columns.name.some((name) => name !== null)
          ? select(
              "Name",
              [
                ["", "any"],
                ...[
                  ["label", "a label"],
                  ["words", "words of captions"],
                ].filter((_, place) => columns.named_by.includes(place + 1)),
                ["none", "without a name"],
              ],
              parameters.named ?? "",
              (named) => change({ named }),
            )
          : null,
        h(
          "p.soft.keys",
          h("kbd", "/"),
          " search, arrows move, ",
          h("kbd", "Enter"),
          " opens, ",
          h("kbd", "j"),
          " and ",
          h("kbd", "k"),
          " turn the pages",
        ),
      ),
    );
  };

  return { make };
})();
