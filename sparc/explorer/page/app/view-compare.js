// Two models: a scatter of how often each latent fires in one and in the other, and the latents on which they differ.
"use strict";
const CompareView = (() => {
  const { h, said, select } = Dom;
  const listed = 8;

  // A scale by square roots opens the crowd of rare latents near 0, which logarithms would drop.
  const rootAxis = (label, top, more) =>
    Charts.axis(label, {
      splits: (plot, axis) => {
        const [length, least] = axis === 0 ? [plot.bbox.width || plot.width, 42] : [plot.bbox.height || plot.height, 18];
        const roots = [0, 0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1].map(Math.sqrt).filter((tick) => tick <= top);
        const room = (least * uPlot.pxRatio * top) / length;
        let last = -1;
        return roots.filter((tick) => tick - last >= room && ((last = tick), true));
      },
      values: (_, ticks) => ticks.map((tick) => Format.share(Math.round(tick * tick * 1e6) / 1e6)),
      ...more,
    });

  const numbers = (a, b) => {
    const pair = Dictionary.pair(a, b);
    const [ratesA, ratesB] = [a, b].map((name) => Dictionary.columns.rate[name]);
    return Array.from({ length: Dictionary.size }, (_, latent) => {
      const [inA, inB] = pair
        ? [pair.a[latent], pair.b[latent]]
        : [ratesA, ratesB].map((rates) => Math.round(rates[latent] * Dictionary.run.shown));
      const both = pair ? pair.both[latent] : null;
      const differ = both === null ? Math.abs(inA - inB) : inA + inB - 2 * both;
      const either = both === null ? Math.max(inA, inB) : inA + inB - both;
      return {
        latent,
        inA,
        inB,
        both,
        differ,
        either,
        rateA: ratesA[latent],
        rateB: ratesB[latent],
        overlap: both === null || !either ? null : both / either,
      };
    }).filter((one) => one.rateA > 0 || one.rateB > 0);
  };

  // Rates are whole numbers of samples, so that dots lie on one another: each moves by less than half a sample, always the same way.
  const spread = (rate, latent, turn) => {
    if (rate === 0) return 0;
    const part = (latent * turn) % 1;
    return rate + ((part - 0.5) * 0.8) / Dictionary.run.shown;
  };

  const tale = (one, a, b) =>
    one.both === null
      ? `${a} ${Format.count(one.inA)}, ${b} ${Format.count(one.inB)}`
      : `${a} alone ${Format.count(one.inA - one.both)}, ${b} alone ${Format.count(one.inB - one.both)}, both ${Format.count(one.both)}`;

  // why: what the chip says of the list, once it is read away from this page.
  const list = (title, read, rows, say, why = title) =>
    h(
      "section.ranking",
      h("h2", said(title)),
      h("p.soft", read),
      rows.length
        ? h(
            "ol.tiles.one",
            rows.slice(0, listed).map((one) => h("li", LatentParts.tile(one.latent, say(one)))),
          )
        : h("p.soft", "None."),
      rows.length > listed
        ? h(
            "a",
            {
              href: Links.to("latents", {
                only: rows
                  .slice(0, 200)
                  .map((one) => one.latent)
                  .join(","),
                why,
              }),
            },
            rows.length > 200
              ? `The first 200 of ${Format.count(rows.length)} as cards`
              : `All ${Format.count(rows.length)} as cards`,
          )
        : null,
    );

  const show = async (main, _id, parameters) => {
    const { streams } = Dictionary;
    if (streams.length < 2)
      return void main.append(
        h("h1", "Compare two models"),
        h("p.lead", "This run has one stream, so there is nothing to compare."),
      );
    const a = streams.includes(parameters.a) ? parameters.a : streams[0];
    const b = streams.includes(parameters.b) && parameters.b !== a ? parameters.b : streams.find((name) => name !== a);
    const view = parameters.y === "overlap" && Dictionary.pair(a, b) ? "overlap" : "rates";
    const change = (changes) => (location.hash = Links.to("compare", { a, b, y: view, ...changes }));
    const all = numbers(a, b);
    const beside = h("div.beside");
    const place = h("div.scatter", {
      role: "application",
      "aria-label": `Scatter of ${all.length} latents. Arrow keys walk from latent to latent, Enter opens one.`,
    });

    main.append(
      h("h1", "Compare two models"),
      h(
        "p.lead",
        "Each dot is a latent. ",
        h(
          "span.soft",
          view === "rates"
            ? "On the diagonal both models use it equally often; on an edge one of them never does."
            : "High up, both models fire in the same samples; low down, each in samples of its own.",
        ),
      ),
      h(
        "div.tools",
        select(
          "First model",
          streams.map((name) => [name, name]),
          a,
          (value) => change({ a: value, b: value === b ? a : b }),
        ),
        select(
          "Second model",
          streams.filter((name) => name !== a).map((name) => [name, name]),
          b,
          (value) => change({ b: value }),
        ),
        Dictionary.pair(a, b)
          ? select(
              "Show",
              [
                ["rates", "How often each fires"],
                ["overlap", "How far the samples overlap"],
              ],
              view,
              (y) => change({ y }),
            )
          : null,
        h(
          "p.hint",
          Scatter.help(),
          " Dots that would cover one another are spread by less than half a sample.",
        ),
      ),
      beside,
    );

    const root = (value) => Math.sqrt(value);
    const order = (value) => (one, two) => value(two) - value(one) || one.latent - two.latent;
    beside.append(
      place,
      list(
        "They disagree most on",
        "Latents with the most samples in which one of the two fires and the other does not.",
        all.filter((one) => one.inA && one.inB).sort(order((one) => one.differ)),
        (one) => `${Format.plural(one.differ, "sample")}: ${tale(one, a, b)}`,
        `${a} and ${b} disagree most on`,
      ),
    );
    const points = all.map((one) => ({
      ...one,
      x: root(
        view === "rates"
          ? spread(one.rateA, one.latent, 0.618034)
          : spread((one.rateA + one.rateB) / 2, one.latent, 0.618034),
      ),
      y: view === "rates" ? root(spread(one.rateB, one.latent, 0.754878)) : one.overlap,
      colour: one.rateA === 0 || one.rateB === 0 ? "--accent" : "--dot",
    }));
    const top = Math.min(
      1,
      1.05 * Math.max(...points.flatMap((point) => (view === "rates" ? [point.x, point.y] : [point.x]))),
    );
    const wide = { time: false, range: () => [0, top] };
    const mounted = Scatter.draw(place, points, {
      height: Math.min(720, Math.max(320, place.clientWidth * 0.9)),
      scales: { x: wide, y: view === "rates" ? { range: () => [0, top] } : { range: () => [0, 1] } },
      axes: [
        rootAxis(view === "rates" ? `fires in ${a}` : "fires, mean of both", top, { space: 50 }),
        view === "rates"
          ? rootAxis(`fires in ${b}`, top, { size: 62 })
          : Charts.axis("overlap of samples", { size: 54 }),
      ],
      facts: (point) =>
        `${a} ${Format.share(point.rateA)}, ${b} ${Format.share(point.rateB)}${point.both === null ? "" : `; ${tale(point, a, b)}`}`,
    });

    main.append(
      h(
        "div.rankings",
        list(
          `${a} has, ${b} lacks`,
          "Latents that fire in the first and never in the second.",
          all.filter((one) => one.rateB === 0).sort(order((one) => one.inA)),
          (one) => Format.plural(one.inA, "sample"),
        ),
        list(
          `${b} has, ${a} lacks`,
          "Latents that fire in the second and never in the first.",
          all.filter((one) => one.rateA === 0).sort(order((one) => one.inB)),
          (one) => Format.plural(one.inB, "sample"),
        ),
      ),
    );
    return () => mounted.stop();
  };

  return { title: () => "Compare", show };
})();
