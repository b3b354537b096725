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
    const drawPanel = () => side.replaceChildren(FilterPanel.make(parameters, change, drawPanel));
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
