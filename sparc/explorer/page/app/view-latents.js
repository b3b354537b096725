// The latents: search, filters, order, and a grid of cards.
"use strict";
const LatentsView = (() => {
  const { h, select } = Dom;

  const sought = () => {
    const { labels, captions } = Dictionary.run.has;
    return captions ? "names and captions" : labels ? "names" : "numbers of latents";
  };

  const searchBox = (parameters, change) => {
    const input = h("input", {
      type: "search",
      id: "search",
      value: parameters.q ?? "",
      placeholder: `Search ${sought()} …`,
      autocomplete: "off",
      spellcheck: "false",
      "aria-label": `Search ${sought()}`,
      dir: "auto",
      on: { input: () => change({ q: input.value }) },
    });
    return h("div.search", input, h("kbd", { title: "Press / to search", "aria-hidden": "true" }, "/"));
  };

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

  const panel = (parameters, change, redraw) => {
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

  const intro = () => {
    const { streams, size, columns } = Dictionary;
    const several = streams.length > 1;
    const who = several ? `${streams.length} models share these` : "One model uses these";
    const named = columns.name.filter((name) => name !== null).length;
    return h(
      "p.lead",
      `${who} ${Format.count(size)} latents`,
      named ? `, of which ${Format.count(named)} are concepts with a name` : "",
      `. Each card shows what makes one fire, and how often${several ? " in each model" : ""}. `,
      h("span.soft", several ? "Open one to compare the models." : "Open one to see what is known of it."),
    );
  };

  const show = async (main, _id, parameters) => {
    let latents = [];
    const grid = new Grid.CardGrid({
      label: "Latents",
      least: 216,
      height: LatentCard.height,
      card: () => LatentCard.make((index) => latents[index]),
    });
    const count = h("p.count");
    const rare = h("p.soft", { hidden: true });
    const elsewhere = h("p.elsewhere", { hidden: true });
    const chips = h("ul.chips", { "aria-label": "Filters that are set" });
    const empty = h("div.empty", { hidden: true });
    const side = h("aside.side", { "aria-label": "Filters" });
    let turn = 0;

    const update = async () => {
      const mine = (turn += 1);
      const text = (parameters.q ?? "").trim();
      const found = text ? await answers(text) : null;
      if (mine !== turn) return;
      latents = Filters.apply(parameters, found);
      Links.keep("latents", parameters);
      remember(latents);
      count.replaceChildren(h("strong", Format.count(latents.length)), ` of ${Format.count(Dictionary.size)} latents`, found?.similar ? "; no latent has these words, so these have similar ones" : "");
      rare.textContent = Filters.last(parameters, latents);
      rare.hidden = !rare.textContent;
      order.querySelector("option").textContent = Filters.unsorted(parameters);
      drawChips();
      grid.show(latents.length);
      drawEmpty();
      Dom.announce(`${latents.length} latents`);
      elsewhere.hidden ||= !text;
      drawSamples(text);
    };

    // Samples that match too: for those who look for a thing and not for a latent.
    const drawSamples = Dom.debounce(150, async (text) => {
      const matches = text ? (await Search.samples())(text) : [];
      if (text !== (parameters.q ?? "").trim()) return;
      elsewhere.hidden = !matches.length;
      if (!matches.length) return;
      const samples = await Data.load("samples");
      elsewhere.replaceChildren(
        h(
          "a",
          { href: Links.to("samples", { q: text }) },
          `${Format.plural(matches.length, "sample")} ${matches.length === 1 ? "has" : "have"} ${matches.similar ? "similar" : "these"} words`,
        ),
        ...matches.slice(0, 6).map((sample) => {
          const said = Dictionary.sampleText(samples, sample);
          return h(
            "a",
            { href: Links.to(`sample/${sample}`), title: said, "aria-label": `sample: ${said}` },
            samples.thumb[sample] >= 0 ? Pictures.thumbnail(samples.thumb[sample], "") : h("span.text", Dom.said(said)),
          );
        }),
      );
    });

    const answers = async (text) => {
      const number = /^(?:#|latent |concept )?(\d+)$/i.exec(text)?.[1];
      const found = (await Search.latents())(text);
      return number !== undefined && Number(number) < Dictionary.size
        ? [Number(number), ...(found.similar ? [] : found.filter((latent) => latent !== Number(number)))]
        : found;
    };

    const change = (changes) => {
      Object.assign(parameters, changes);
      for (const key of Object.keys(parameters)) if (parameters[key] === "") delete parameters[key];
      window.scrollTo(0, 0);
      return update();
    };

    const drawEmpty = () => {
      empty.hidden = latents.length > 0;
      if (latents.length) return;
      const state = Dictionary.states.find(({ name }) => name === parameters.state);
      empty.replaceChildren(
        h("p", none(parameters, state)),
        h(
          "button.button",
          {
            type: "button",
            on: {
              click: () => {
                change(Object.fromEntries(Object.keys(parameters).map((key) => [key, ""])));
                document.getElementById("search").value = "";
                drawPanel();
              },
            },
          },
          "Show all latents",
        ),
      );
    };

    const drawChips = () => {
      const set = Filters.chips(parameters).filter(([key]) => key !== "q");
      chips.replaceChildren(
        ...set.map(([key, text]) =>
          h(
            "li",
            h(
              "button.chip",
              {
                type: "button",
                "aria-label": `Remove the filter: ${text}`,
                on: {
                  click: () => {
                    change({ [key]: "", ...(key === "only" ? { why: "" } : {}) });
                    drawPanel();
                  },
                },
              },
              Dom.said(text),
              h("span", { "aria-hidden": "true" }, "×"),
            ),
          ),
        ),
      );
      chips.hidden = !set.length;
    };
    const drawPanel = () => side.replaceChildren(panel(parameters, change, drawPanel));
    const order = select(
      "Order",
      [
        ["", Filters.unsorted(parameters)],
        ...Object.entries(Filters.orders)
          .filter(([key]) => offered(key))
          .map(([key, one]) => [key, one.label]),
      ],
      parameters.sort ?? "",
      (sort) => change({ sort }),
    );

    drawPanel();
    main.append(
      h("h1.unseen", "Latents"),
      intro(),
      h(
        "div.browse",
        side,
        h(
          "section.results",
          h("div.tools", searchBox(parameters, change), order),
          h("div.status", count),
          rare,
          elsewhere,
          chips,
          empty,
          grid.host,
        ),
      ),
    );
    grid.attach();
    await update();
    window.requestIdleCallback?.(() => Search.latents());
    return () => grid.detach();
  };

  const latentLink = (latent) =>
    h(
      "a",
      { href: Links.to(`latent/${latent}`) },
      Dom.said(Dictionary.title(latent)),
      Dictionary.columns.name[latent] === null ? null : ` (${latent})`,
    );

  // Why a page is empty.
  const none = (parameters, state) => {
    const set = Filters.chips(parameters).map(([key]) => key);
    if (parameters.state === "none") return "No state is ticked under Filters, so no latent is shown.";
    if (set.length === 1 && set[0] === "q") return "No latent matches the search.";
    if (set.includes("q")) return "No latent that passes these filters matches the search.";
    if (!state || set.length > 1) return "No latent passes these filters.";
    const { nearest_pair: near, duplicate } = Dictionary.run;
    return [
      `None of the latents is of this kind. ${state.label}: ${state.read}`,
      state.name === "duplicate" && near
        ? [
            ` Duplicates have decoders with a cosine of ${duplicate} or more${Dictionary.streams.length > 1 ? " in each stream" : ""}. Nearest to that are `,
            latentLink(near[0]),
            " and ",
            latentLink(near[1]),
            `: ${Format.number(near[2])}${Dictionary.streams.length > 1 ? " in the stream in which they are least alike" : ""}.`,
          ]
        : null,
    ];
  };

  const offered = (key) => {
    if (key === "agreement" || key === "disagreement") return Dictionary.streams.length > 1;
    return key !== "purity" || Dictionary.run.has.labels;
  };

  // The list that the reader came from: for the way back, and for the next and the previous latent.
  let last = null;
  const remember = (latents) => (last = { latents, fragment: location.hash });
  const lastList = () => last ?? { latents: Filters.apply({}, null), fragment: "#/latents" };

  return { title: () => "Latents", show, lastList };
})();
