// One sample: its latents in every model, those that all models agree on, and what each gives to the rebuilding of the others.
"use strict";
const SampleView = (() => {
  const { h, said, select } = Dom;
  const { bar, mention, tile } = LatentParts;
  const listed = 16;

  const codeRows = (codes, shared) => {
    const most = Math.max(...codes.map(([, value]) => value), 1e-9);
    return h(
      "ol.codes",
      codes.map(([latent, value]) =>
        h(
          `li${shared.has(latent) ? ".shared" : ""}`,
          mention(latent),
          bar(value / most, `activation ${Format.measure(value)}`),
          h("span.value", Format.measure(value)),
        ),
      ),
    );
  };

  const codesOf = (name, codes, shared, note) => {
    const place = h("div", codeRows(codes.slice(0, listed), shared));
    const more =
      codes.length > listed
        ? h(
            "button.button",
            {
              type: "button",
              on: {
                click: () => {
                  place.replaceChildren(codeRows(codes, shared));
                  more.remove();
                },
              },
            },
            `All ${Format.count(codes.length)}`,
          )
        : null;
    return h(
      "section.stream",
      h("h3", name),
      h("p.soft", note ?? Format.plural(codes.length, "latent")),
      codes.length ? place : h("p.soft", "No code."),
      more,
    );
  };

  const agreed = (sample, streams) => {
    const present = streams.filter((_, stream) => sample.there[stream]);
    const found = new Map();
    for (const name of present)
      for (const [latent] of sample.codes[name] ?? []) found.set(latent, [...(found.get(latent) ?? []), name]);
    const all = [...found]
      .filter(([, names]) => names.length === present.length && present.length > 1)
      .map(([latent]) => latent);
    return { present, all, either: found.size };
  };

  const rebuilding = (sample, parameters, sampleNumber) => {
    const { streams } = Dictionary;
    const ways = new Map(
      streams
        .flatMap((from) => streams.map((to) => [`${from}>${to}`, { from, to }]))
        .filter(([way]) => sample.parts?.[way]),
    );
    if (!ways.size) return null;
    const across = [...ways.keys()].filter((way) => ways.get(way).from !== ways.get(way).to);
    const chosen = ways.has(parameters.way) ? parameters.way : (across[0] ?? [...ways.keys()][0]);
    const place = h("div");
    const draw = (way) => {
      const parts = sample.parts[way];
      const most = Math.max(...parts.map(([, share]) => Math.abs(share)), 1e-9);
      place.replaceChildren(
        h(
          "p",
          "The rebuilt vector explains ",
          h("strong", Format.share(Math.max(0, sample.explained[way] ?? 0))),
          " of it. Largest parts:",
        ),
        h(
          "ol.codes.parts",
          parts.map(([latent, share]) =>
            h(
              `li${share < 0 ? ".against" : ""}`,
              mention(latent),
              bar(Math.abs(share) / most, `share ${Format.number(share, 3)}`),
              h("span.value", `${share < 0 ? "−" : ""}${Format.share(Math.abs(share))}`),
            ),
          ),
        ),
      );
    };
    draw(chosen);
    return h(
      "section.block",
      h(
        "h2",
        streams.length > 1
          ? "What each latent gives when one model's code rebuilds another model"
          : "What each latent gives when the code rebuilds the model's features",
      ),
      h(
        "div.tools",
        select(
          "From → to",
          [...ways].map(([way, { from, to }]) => [way, `${from} → ${to}`]),
          chosen,
          (way) => {
            Links.keep(`sample/${sampleNumber}`, { way });
            draw(way);
          },
        ),
      ),
      place,
      h("p.soft", "Share: how far the latent moves the rebuilt vector along the true one. Below 0 it moves it away."),
    );
  };

  // Codes of each model alone, or of all models encoded together; the reader changes between them.
  const codeColumns = (sample, present, shared) => {
    const place = h("div.streams");
    const draw = (codes) =>
      place.replaceChildren(...present.map((name) => codesOf(said(name), codes[name] ?? [], shared)));
    draw(sample.codes);
    const together = sample.joint && present.length > 1 && present.some((name) => sample.joint[name]?.length);
    return [
      together
        ? h(
            "div.tools",
            select(
              "Encoded",
              [
                ["codes", "each model alone"],
                ["joint", "all models together"],
              ],
              "codes",
              (key) => draw(sample[key]),
            ),
          )
        : null,
      place,
    ];
  };

  const step = (number, samples, by, text, key) => {
    const other = number + by;
    return other < 0 || other >= samples.id.length
      ? null
      : h("a.button", { href: Links.to(`sample/${other}`), "data-key": key, title: `Key ${key}` }, text);
  };

  const show = async (main, id, parameters) => {
    const samples = await Data.load("samples");
    const number = Number(id);
    if (!Number.isInteger(number) || number < 0 || number >= samples.id.length)
      throw new Error(`There is no sample ${id}: they are numbered 0 to ${samples.id.length - 1}.`);
    const sample = await Dictionary.sample(number);
    const { streams } = Dictionary;
    const { present, all, either } = agreed(sample, streams);
    const shared = new Set(all);
    main.append(
      h(
        "nav.trail",
        { "aria-label": "Samples" },
        h("a", { href: "#/samples" }, "← Samples"),
        h("span.steps", step(number, samples, -1, "← previous", "k"), step(number, samples, 1, "next →", "j")),
      ),
      h(
        "header.head.sample",
        samples.thumb[number] >= 0
          ? Pictures.thumbnail(samples.thumb[number], samples.caption[number] ?? samples.id[number])
          : null,
        h(
          "div",
          h(
            `h1.caption${(sample.caption ?? "").length > 160 ? ".long" : ""}`,
            said(sample.caption ?? samples.id[number]),
          ),
          sample.truncated ? h("p.soft", "The caption goes on; the page keeps its first 4,000 characters.") : null,
          sample.caption === null ? null : h("p.number", said(samples.id[number])),
          sample.labels.length
            ? h(
                "ul.chips",
                { "aria-label": "Labels" },
                sample.labels.map((label) =>
                  h("li", h("a.chip", { href: Links.to("latents", { q: label }) }, said(label))),
                ),
              )
            : null,
        ),
      ),
    );
    if (present.length > 1) {
      main.append(
        h(
          "section.block",
          h("h2", "Latents that all models find in it"),
          h(
            "p.soft",
            `${Format.count(all.length)} of the ${Format.count(either)} latents that any of ${present.length} models finds.`,
          ),
          h(
            "div.tiles",
            all.map((latent) => tile(latent, LatentParts.surety(latent))),
          ),
        ),
      );
    }
    const missing = streams.filter((_, stream) => !sample.there[stream]);
    main.append(
      h(
        "section.block",
        h("h2", `What ${streams.length > 1 ? "each" : "the"} model finds in it`),
        h(
          "p.soft",
          present.length > 1 ? "Strongest first; a dot marks those that all models find." : "Strongest first.",
        ),
        missing.length
          ? h(
              "p.note",
              "Not in this sample: ",
              missing.map((name, place) => [place ? ", " : "", said(name)]),
            )
          : null,
        ...codeColumns(sample, present, shared),
      ),
    );
    const parts = rebuilding(sample, parameters, number);
    if (parts) main.append(parts);
  };

  return { title: (id) => `Sample ${id}`, show };
})();
