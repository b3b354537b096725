// The run: what was trained on what, how training went, and what was measured, each with how to read it.
"use strict";
const RunView = (() => {
  const { h, said, table } = Dom;

  const curves = (run) => {
    if (!run.curves?.length) return null;
    return h(
      "section.block",
      h("h2", "How training went"),
      h(
        "div.charts.wide",
        run.curves.map((curve) =>
          h(
            "figure",
            h("figcaption", h("strong", said(curve.label))),
            Charts.lines(`${curve.label}. ${curve.read}`, curve.x, curve.series, { xLabel: "step" }),
            curve.series.length > 1 ? Charts.key(curve.series) : null,
            h("p.soft", said(curve.read)),
          ),
        ),
      ),
    );
  };

  const measures = (run) => {
    if (!run.measures?.length)
      return h(
        "section.block",
        h("h2", "What was measured"),
        h("p.soft", "Nothing yet: “sparc evaluate” measures this run."),
      );
    return h(
      "section.block",
      h("h2", "What was measured"),
      table(
        "Measures of this run",
        ["Measure", "value", "null: by chance", "how to read it"],
        run.measures.map((one) => [
          said(one.label),
          h("strong", Format.measure(one.value)),
          one.null === null || one.null === undefined ? "" : Format.measure(one.null),
          h(
            "span.read",
            said(one.read),
            h(
              "span.soft",
              one.better === "lower" ? " Lower is better." : one.better === "higher" ? " Higher is better." : "",
            ),
          ),
        ]),
      ),
    );
  };

  const show = async (main) => {
    const { run } = Dictionary;
    const states = Dictionary.states.map((state, index) => [
      state,
      Dictionary.columns.state.filter((value) => value === index).length,
    ]);
    main.append(
      h("h1", "The run ", said(run.name)),
      h(
        "p.lead",
        `${Format.count(run.n_latents)} latents, of which ${Format.count(run.k)} fire at once, learned by ${Format.plural(run.streams.length, "model")}`,
        run.dataset ? [" from ", said(run.dataset.name)] : " from imported features",
        ". ",
        h(
          "span.soft",
          `Everything here is of ${run.shown < run.held_out ? `${Format.count(run.shown)}, evenly chosen, of ` : ""}${Format.plural(run.held_out, "sample")} that training never saw.`,
        ),
      ),
      ...(run.warnings ?? []).map((warning) => h("p.note", said(warning))),
      h(
        "section.block",
        h("h2", "The models"),
        table(
          "Streams",
          ["Stream", "of", "width", "weights", "grid of patches"],
          run.streams.map((stream) => [
            said(stream.name),
            stream.modality,
            Format.count(stream.width),
            stream.random_weights ? "random: a control" : "trained",
            stream.grid ? stream.grid.join(" × ") : "–",
          ]),
        ),
      ),
      h(
        "section.block",
        h("h2", "The latents"),
        h(
          "dl.facts",
          states.map(([state, count]) =>
            h(
              "div.fact",
              { title: state.read },
              h("dt", h("a", { href: Links.to("latents", { state: state.name }) }, state.label)),
              h("dd", Format.count(count)),
            ),
          ),
        ),
      ),
    );
    for (const part of [measures(run), curves(run)]) if (part) main.append(part);
    main.append(h("p.soft.colophon", `Written by SPARC ${run.version}. The page asks nothing of the network.`));
  };

  return { title: () => "Run", show };
})();
