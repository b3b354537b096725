// One latent: what makes it fire in each model, how often, how far the models agree, and what is near it.
"use strict";
const LatentView = (() => {
  const { h, said, table } = Dom;
  const { bar, link, tile } = LatentParts;

  const trail = (latent) => {
    const { latents, fragment } = LatentsView.lastList();
    const place = latents.indexOf(latent);
    const step = (by, text, key) => {
      const other = place < 0 ? undefined : latents[place + by];
      return other === undefined
        ? null
        : h(
            "a.button",
            { href: Links.to(`latent/${other}`), "data-key": key, title: `${Dictionary.title(other)} (key ${key})` },
            text,
          );
    };
    return h(
      "nav.trail",
      { "aria-label": "Latents" },
      h("a", { href: fragment || "#/latents" }, `← ${Format.plural(latents.length, "latent")}`),
      h("span.steps", step(-1, "← previous", "k"), step(1, "next →", "j")),
    );
  };

  const named = (latent) => {
    const { named_by: by, sure } = Dictionary.columns;
    const percent =
      sure[latent] === null
        ? ""
        : ` ${Math.round(sure[latent] * 100)}\u00a0% of the samples of the other half in which it fires carry it.`;
    const { labels, captions } = Dictionary.run.has;
    const sought = labels ? "label" : "word of the captions";
    return [
      labels || captions
        ? `No name: no ${sought} is found beyond chance in both halves of the samples.`
        : "No name: this run has neither labels nor captions, from which names are made.",
      `The name is a label, chosen on one half of the samples and confirmed on the other.${percent}`,
      `The name is made of words of the captions, chosen on one half of the samples and confirmed on the other.${percent}`,
    ][by[latent]];
  };

  const stateLine = (latent) => {
    const { duplicate_of: of } = Dictionary.columns;
    const state = Dictionary.state(latent);
    return h(
      "p.state",
      LatentParts.badge(latent),
      " ",
      state.read,
      of[latent] >= 0 ? [" See ", link(of[latent]), "."] : null,
    );
  };

  const fact = (label, value, read, more = null) =>
    h("div.fact", { title: read }, h("dt", label), h("dd", value, more ? h("span.soft", " ", more) : null));

  const facts = (latent, detail) => {
    const { columns, run, streams } = Dictionary;
    const own = detail?.labels?.find(([label]) => label === columns.name[latent]) ?? detail?.labels?.[0];
    return h(
      "dl.facts",
      streams.length > 1
        ? fact(
            "Agreement",
            Format.number(columns.agreement[latent]),
            "Correlation of its activations between streams, mean over pairs; 1 is the same.",
          )
        : null,
      fact(
        "Fires in",
        Format.share(Dictionary.meanRate(latent)),
        "Share of the samples in which it fires, mean over streams.",
      ),
      run.has.labels
        ? fact(
            "Purity",
            own ? Format.share(own[1] / own[3]) : Format.share(null),
            own
              ? "Share of the samples in which it fires, in any stream, that carry this label."
              : "No label is more frequent in its samples than elsewhere.",
            own ? said(own[0]) : "no label stands out",
          )
        : null,
      columns.sure[latent] === null
        ? null
        : fact(
            "Name fits",
            Format.share(columns.sure[latent]),
            "Share of the samples in which it fires that carry the name, on the half of the samples that did not choose it.",
            "in the half that did not choose it",
          ),
    );
  };

  const histograms = (detail) => {
    const present = Dictionary.run.streams.filter((stream) =>
      detail.histogram?.[stream.name]?.counts.some((count) => count > 0),
    );
    if (!present.length) return null;
    return h(
      "section.block",
      h("h2", "How strongly it fires"),
      h("p.soft", "Samples by activation above 0, on one scale for all streams."),
      h(
        "div.charts",
        present.map((stream) => {
          const { edges, counts } = detail.histogram[stream.name];
          const total = counts.reduce((sum, value) => sum + value, 0);
          return h(
            "figure",
            Charts.histogram(
              `Histogram of activations in ${stream.name}: ${total} samples between ${Format.compact(edges[0])} and ${Format.compact(edges[edges.length - 1])}`,
              edges,
              counts,
            ),
            h("figcaption", said(stream.name), h("span.soft", ` ${Format.plural(total, "sample")}`)),
          );
        }),
      ),
    );
  };

  const pairs = (detail) => {
    if (!detail.pairs?.length) return null;
    const { streams, run } = Dictionary;
    return h(
      "section.block",
      h("h2", "Which samples the models agree on"),
      table(
        "Samples in which it fires, for each pair of streams",
        ["Streams", "in the first", "in the second", "in both", "by chance", "overlap"],
        detail.pairs.map(([a, b, inA, inB, both]) => [
          [said(streams[a]), " and ", said(streams[b])],
          Format.count(inA),
          Format.count(inB),
          h("strong", Format.count(both)),
          Format.number((inA * inB) / run.shown, 1),
          Format.share(inA + inB - both ? both / (inA + inB - both) : null),
        ]),
      ),
      h(
        "p.soft",
        "By chance: how many samples both would fire in if they chose independently. Overlap: both, as a share of those in which either fires.",
      ),
    );
  };

  const depths = (latent) => {
    const { jaccard, null: chance } = Dictionary.columns;
    const { depths: levels } = Dictionary.run;
    if (!levels.length || !jaccard?.[0]) return null;
    const one = (values, depth, text) => [
      bar(values[depth][latent], text),
      " ",
      h("span.value", Format.number(values[depth][latent])),
    ];
    if (levels.every((_, depth) => jaccard[depth][latent] === null)) return null;
    return h(
      "section.block",
      h("h2", "Do its labels agree between models?"),
      table(
        "Jaccard of its labels between streams at each depth of the taxonomy, beside chance",
        ["Depth", "Jaccard", "on shuffled pairs"],
        levels.map((depth, place) => [
          String(depth),
          h("span.measure", one(jaccard, place, "Jaccard")),
          h("span.measure.pale", one(chance, place, "by chance")),
        ]),
      ),
      h(
        "p.soft",
        "Jaccard: labels that its samples share in two streams, as a share of all labels of either. Depth 0 is the root of the taxonomy, where nearly everything is alike; the deeper, the finer the labels.",
      ),
    );
  };

  const nearest = (detail) => {
    if (!detail.nearest?.length) return null;
    const { streams } = Dictionary;
    return h(
      "section.block",
      h("h2", "Nearest latents"),
      h("p.soft", "By the cosine of their decoder directions, mean over streams."),
      h(
        "div.tiles",
        detail.nearest.map(([other, mean, each]) =>
          tile(
            other,
            Format.number(mean),
            streams.length > 1
              ? h(
                  "span.each",
                  each.map((value, stream) => h("span", said(streams[stream]), ` ${Format.number(value)}`)),
                )
              : null,
          ),
        ),
      ),
    );
  };

  const together = (detail) => {
    if (!detail.together?.length) return null;
    return h(
      "section.block",
      h("h2", "Fires together with"),
      h(
        "p.soft",
        `Latents that fire in the same samples, and how many times more often than by chance${Dictionary.streams.length > 1 ? "; both are means over streams" : ""}.`,
      ),
      h(
        "div.tiles",
        detail.together.map(([other, count, lift]) =>
          tile(
            other,
            `${Dictionary.streams.length > 1 ? `on average ${Format.number(count, Number.isInteger(count) ? 0 : 1)} samples a stream` : Format.plural(count, "sample")}, ${Format.compact(lift)} × chance`,
          ),
        ),
      ),
    );
  };

  const enriched = (title, read, heads, rows) =>
    rows?.length ? h("section.block", h("h2", title), h("p.soft", read), table(title, heads, rows)) : null;
  const words = (detail) =>
    enriched(
      "Words of its captions",
      "Words that stand in its captions more often than elsewhere. Its samples: those in which it fires in any stream.",
      ["Word", "its samples with it", "all samples with it", "share of its samples"],
      detail.words?.map(([word, hits, all, fires]) => [
        said(word),
        Format.count(hits),
        Format.count(all),
        Format.share(fires ? hits / fires : null),
      ]),
    );
  const labels = (detail) =>
    enriched(
      "Labels of its samples",
      "Labels that its samples carry more often than others. Its samples: those in which it fires in any stream. Purity: share of its samples that carry the label. Confirmed: found in one half of the samples, and so in the other too.",
      ["Label", "its samples with it", "all samples with it", "purity", "confirmed"],
      detail.labels?.map(([label, hits, all, fires, , confirmed]) => [
        said(label),
        Format.count(hits),
        Format.count(all),
        Format.share(fires ? hits / fires : null),
        confirmed ? "yes" : "no",
      ]),
    );

  const show = async (main, id) => {
    const latent = Number(id);
    if (!Number.isInteger(latent) || latent < 0 || latent >= Dictionary.size)
      throw new Error(`There is no latent ${id}: they are numbered 0 to ${Dictionary.size - 1}.`);
    const [detail, samples] = await Promise.all([Dictionary.detail(latent), Data.load("samples")]);
    const name = Dictionary.columns.name[latent];
    main.append(
      trail(latent),
      h(
        "header.head",
        h("h1", LatentParts.title(latent)),
        h(
          "p.number",
          name === null ? null : `latent ${latent}`,
          Dictionary.run.branches[Dictionary.columns.branch[latent]]
            ? [name === null ? "" : " · ", "mostly ", said(Dictionary.run.branches[Dictionary.columns.branch[latent]])]
            : null,
        ),
        h("p.named", named(latent)),
        stateLine(latent),
        facts(latent, detail),
      ),
    );
    if (!detail) return void main.append(h("p.soft", "It fired in no sample, so there is nothing to show."));
    const columns = h(
      "div.streams",
      Dictionary.run.streams.map((stream, index) => TopSamples.column(latent, detail, stream, index, samples)),
    );
    main.append(
      h(
        "section.block.first",
        h("div.heading", h("h2", `What makes it fire${Dictionary.streams.length > 1 ? ", model by model" : ""}`), TopSamples.heatSwitch(columns)),
        columns,
      ),
      ...[
        pairs(detail),
        depths(latent),
        histograms(detail),
        nearest(detail),
        together(detail),
        labels(detail),
        words(detail),
      ].filter(Boolean),
    );
    return undefined;
  };

  return {
    title: (id) => (Dictionary.columns.name[id] !== undefined ? Dictionary.title(Number(id)) : "Latent"),
    show,
  };
})();
