// The samples: pictures and captions that the latents were looked up in.
"use strict";
const SamplesView = (() => {
  const { h } = Dom;

  // A card that can be filled for one sample after another.
  const card = (samples, sampleOf) => {
    const picture = h("span.thumb");
    const text = h("bdi", { dir: "auto" });
    const body = h("span.body", h("span.caption", text));
    const element = h("a.card", body);
    const show = (index) => {
      const sample = sampleOf(index);
      const pictured = samples.thumb[sample] >= 0;
      element.setAttribute("href", Links.to(`sample/${sample}`));
      Dom.keep(element, picture, pictured, body);
      if (pictured) Pictures.show(picture, samples.thumb[sample], "");
      body.classList.toggle("long", !pictured);
      Dom.write(text, Dictionary.sampleText(samples, sample));
    };
    return { element, show };
  };

  const show = async (main, _id, parameters) => {
    const { run } = Dictionary;
    const samples = await Data.load("samples");
    const pictures = samples.thumb.some((thumb) => thumb >= 0);
    const several = Dictionary.streams.length > 1;
    let shown = [];
    const grid = new Grid.CardGrid({
      label: "Samples",
      least: pictures ? 150 : 240,
      height: (width) => (pictures ? width + 62 : run.has.captions ? 118 : 54),
      card: () => card(samples, (index) => shown[index]),
    });
    const count = h("p.count");
    let turn = 0;
    const update = async () => {
      const mine = (turn += 1);
      const text = (parameters.q ?? "").trim();
      const found = text ? (await Search.samples())(text) : null;
      if (mine !== turn) return;
      shown = found ?? samples.id.map((_, sample) => sample);
      Links.keep("samples", parameters);
      count.replaceChildren(
        h("strong", Format.count(shown.length)),
        ` of ${Format.plural(run.shown, "sample")}`,
        run.shown < run.held_out ? ` (an even choice of the ${Format.count(run.held_out)} held out)` : "",
        found?.similar ? "; no sample has these words, so these have similar ones" : "",
        found && !found.length ? "; none matches the search" : "",
      );
      grid.show(shown.length);
      Dom.announce(`${shown.length} samples`);
    };
    const sought = run.has.captions ? "captions and ids" : "ids";
    const input = h("input", {
      type: "search",
      value: parameters.q ?? "",
      placeholder: `Search ${sought} …`,
      dir: "auto",
      spellcheck: "false",
      "aria-label": `Search ${sought}`,
      on: {
        input: () => {
          parameters.q = input.value;
          window.scrollTo(0, 0);
          update();
        },
      },
    });
    main.append(
      h("h1.unseen", "Samples"),
      h(
        "p.lead",
        several ? "What the models were shown. " : "What the model was shown. ",
        h("span.soft", `Open one to see which latents ${several ? "each model" : "it"} finds in it.`),
      ),
      h("div.tools", h("div.search", input, h("kbd", { "aria-hidden": "true" }, "/"))),
      h("div.status", count),
      grid.host,
    );
    grid.attach();
    await update();
    return () => grid.detach();
  };

  return { title: () => "Samples", show };
})();
