// The bias check: two words or labels, and the latents that couple them beyond chance, in which models and how strongly.
"use strict";
const BiasView = (() => {
  const { h, said, table } = Dom;
  const { positions, proposals, carried } = BiasTerms;
  const examples = [
    ["woman", "nurse"],
    ["woman", "health worker"],
    ["man", "office worker"],
    ["person", "medium skin tone"],
    ["dark skin tone", "worker"],
    ["red", "heart"],
    ["animal", "food"],
  ];

  const sorted = (terms) => [...terms].sort((one, two) => one.term.localeCompare(two.term));

  const suggestions = (bias) => {
    const known = new Map(bias.terms.map((one) => [one.term, one.samples]));
    const [labels, words] = ["label", "word"].map((kind) =>
      bias.terms.filter((one) => one.kind === kind).map((one) => one.term),
    );
    const alone = (one, other) => known.get(one).filter((sample) => !known.get(other).includes(sample)).length;
    const pairs = [...examples, labels.slice(0, 2), words.slice(0, 2), [words[0], labels[1]]]
      .filter(
        ([a, b]) => known.has(a) && known.has(b) && alone(a, b) >= Coupling.fewest && alone(b, a) >= Coupling.fewest,
      )
      .slice(0, 3);
    return pairs.length
      ? h(
          "p.suggest",
          "For example: ",
          pairs.map(([a, b], place) => [
            place ? ", " : "",
            h("a", { href: Links.to("bias", { a, b }) }, said(a), " and ", said(b)),
          ]),
        )
      : null;
  };

  const frequent = (bias, fill) =>
    h(
      "section.terms",
      h("h2", "Frequent terms"),
      h("p.soft", "Choose one, then another; or type any word of the captions."),
      h(
        "ul.chips",
        bias.terms
          .filter((one, place) => bias.terms.findIndex((other) => other.term === one.term) === place)
          .slice(0, 60)
          .map((one) =>
            h(
              "li",
              h(
                "button.chip",
                { type: "button", on: { click: () => fill(one.term) } },
                said(one.term),
                h("span.soft", Format.count(one.samples.length)),
              ),
            ),
          ),
      ),
    );

  // The interval of a log odds ratio on one scale for all rows; the line in the middle is "no coupling".
  const interval = ({ value, low, high }, most) => {
    const at = (point) => `${50 + 50 * Math.max(-1, Math.min(1, point / most))}%`;
    const text = `odds ${Format.compact(Math.exp(value))} times, 95 % interval ${Format.compact(Math.exp(low))} to ${Format.compact(Math.exp(high))}`;
    return h(
      "span.interval",
      { role: "img", "aria-label": text, title: text },
      h("i", { style: { left: at(low), right: `calc(100% - ${at(high)})` } }),
      h("b", { style: { left: at(value) } }),
    );
  };

  const verdict = (result, a, b) => {
    const latents = new Set(result.passed.map((test) => test.latent));
    const most = Math.max(...result.chance);
    const mean = result.chance.reduce((sum, value) => sum + value, 0) / result.chance.length;
    const streams = Dictionary.streams
      .map((name) => [name, result.passed.filter((test) => test.stream === name).length])
      .filter(([, count]) => count);
    const beyond = result.passed.length > most;
    return h(
      "div.verdict",
      h(
        "p.answer",
        result.passed.length === 0
          ? "No: no latent couples them."
          : beyond
            ? `Yes: ${Format.plural(latents.size, "latent")} ${latents.size === 1 ? "couples" : "couple"} them beyond chance.`
            : `Not beyond chance: ${Format.plural(latents.size, "latent")} ${latents.size === 1 ? "passes" : "pass"}, as ${latents.size === 1 ? "one does" : "some do"} on shuffled labels.`,
      ),
      streams.length
        ? h(
            "p",
            "Tests passed: ",
            streams.map(([name, count], place) => [place ? ", " : "", said(name), ` ${count}`]),
            ".",
          )
        : null,
      h(
        "p.soft",
        `The same test on ${result.chance.length} shuffles of the labels passes ${Format.number(mean, 1)} on average, ${most} at most (here ${result.passed.length} of ${Format.count(result.testCount)}).`,
      ),
      h(
        "p.soft",
        "Samples: ",
        said(a),
        ` alone ${Format.count(result.sizes[1])}, `,
        said(b),
        ` alone ${Format.count(result.sizes[2])}, both ${Format.count(result.sizes[3])}, neither ${Format.count(result.sizes[0])}.`,
      ),
    );
  };

  const rows = (result, a, b) => {
    if (!result.passed.length) return null;
    const shown = result.passed.slice(0, 60);
    const most = Math.max(...shown.map((test) => test.strength.high), 1);
    const part = (test, group) => `${test.hits[group]} of ${test.sizes[group]}`;
    return h(
      "section.block",
      h("h2", "The latents that couple them"),
      table(
        "Latents that couple the two terms",
        ["Latent", "model", "strength", "odds ×", ["with ", said(a)], ["with ", said(b)], "with neither"],
        shown.map((test) => [
          LatentParts.mention(test.latent),
          said(test.stream),
          interval(test.strength, most),
          Format.compact(Math.exp(test.strength.value)),
          part(test, 1),
          part(test, 2),
          part(test, 0),
        ]),
      ),
      result.passed.length > shown.length
        ? h("p.soft", `The strongest ${shown.length} of ${result.passed.length}.`)
        : null,
      h(
        "p",
        h(
          "a",
          {
            href: Links.to("latents", {
              only: [...new Set(result.passed.map((test) => test.latent))].slice(0, 200).join(","),
              why: `couple ${a} and ${b}`,
            }),
          },
          "See them as cards",
        ),
      ),
      h(
        "p.soft",
        "Strength: how many times higher the odds of firing are with the weaker of the two terms than with neither; the line is its 95\u00a0% interval, the middle is no coupling. ",
        "A latent passes when both terms raise its odds (Fisher's exact test, one-sided, the larger of the two p; 5\u00a0% false discoveries over all latents and models, by Benjamini and Hochberg). ",
        "Samples that carry both terms are not counted, so that no latent passes merely because the terms occur together.",
      ),
    );
  };

  const strip = (found, samples) =>
    h(
      "ul.strip",
      found.map((sample) => {
        const text = Dictionary.sampleText(samples, sample);
        return h(
          "li",
          h(
            "a.shot",
            { href: Links.to(`sample/${sample}`), title: text },
            samples.thumb[sample] >= 0 ? Pictures.thumbnail(samples.thumb[sample], text) : h("span.text", said(text)),
          ),
        );
      }),
    );

  const pictures = (result, bias, samples, title) => {
    const found = bias.samples.filter((_, position) => result.codes[position] === Coupling.both).slice(0, 18);
    return found.length ? h("section.block", h("h2", title), strip(found, samples)) : null;
  };

  // For the strongest latents, the samples of each term alone in which they fire.
  const evidence = (result, bias, samples, terms) => {
    const strongest = result.passed
      .filter((test, place) => result.passed.findIndex((other) => other.latent === test.latent) === place)
      .slice(0, 5);
    if (!strongest.length) return null;
    return h(
      "section.block",
      h("h2", "The samples in which they fire"),
      strongest.map((test) =>
        h(
          "section.evidence",
          h("h3", LatentParts.mention(test.latent)),
          h(
            "div.streams",
            terms.map((term, place) => {
              const found = Coupling.firing(bias, test.stream, test.latent)
                .filter((position) => result.codes[position] === place + 1)
                .map((position) => bias.samples[position]);
              return h(
                "div",
                h("p.soft", said(term), ` alone, in `, said(test.stream), `: ${Format.plural(found.length, "sample")}`),
                strip(found.slice(0, 12), samples),
              );
            }),
          ),
        ),
      ),
    );
  };

  const answer = async (bias, samples, a, b) => {
    if (a === b) return [h("p.note", "Choose two different terms.")];
    const [one, two] = [await positions(bias, a), await positions(bias, b)];
    const result = Coupling.check(bias, Dictionary.streams, one, two);
    const rare = [
      { text: a, own: one, other: two, otherText: b, first: true, alone: result.sizes[1] },
      { text: b, own: two, other: one, otherText: a, first: false, alone: result.sizes[2] },
    ].filter(({ alone }) => alone < Coupling.fewest);
    if (!one.length || !two.length) {
      const unknown = [one.length ? null : a, two.length ? null : b].filter((term) => term !== null);
      return [
        h("p.answer", "Nothing to tell."),
        h(
          "p.note",
          `None of the ${Format.count(bias.samples.length)} held-out samples of the check carries `,
          unknown.map((term, place) => [place ? " or " : "", "“", said(term), "”"]),
          ", as a label or in a caption. So these samples cannot tell what the models make of it.",
        ),
        ...(await proposals(bias, rare)),
      ].filter(Boolean);
    }
    const few = result.few
      ? h(
          "p.note",
          { role: "alert" },
          `At least ${result.fewest} samples with `,
          said(a),
          " alone, with ",
          said(b),
          ` alone and with neither are needed; there are ${result.sizes[1]}, ${result.sizes[2]} and ${result.sizes[0]}.`,
        )
      : null;
    return [
      few ? [h("p.answer", "Too few samples to tell."), few] : verdict(result, a, b),
      ...(few ? await proposals(bias, rare) : []),
      few ? null : rows(result, a, b),
      few ? null : evidence(result, bias, samples, [a, b]),
      pictures(result, bias, samples, ["Samples with both ", said(a), " and ", said(b)]),
    ]
      .flat()
      .filter(Boolean);
  };

  const show = async (main, _id, parameters) => {
    const [bias, samples] = await Promise.all([Coupling.load(), Data.load("samples")]);
    main.append(
      h("h1", "Bias check"),
      h(
        "p.lead",
        "Do two words share latents more than chance allows? ",
        h("span.soft", "For instance an attribute of people and a profession."),
      ),
    );
    if (bias.terms.length < 2)
      return void main.append(
        h(
          "p.note",
          "This run's samples have no labels and no captions with words in common, so there is nothing to check.",
        ),
      );
    const options = h(
      "datalist",
      { id: "terms" },
      sorted(bias.terms).map((one) => h("option", { value: one.term }, `${one.kind}, ${one.samples.length} samples`)),
    );
    const field = (label, key) => {
      const input = h("input", {
        type: "text",
        list: "terms",
        value: parameters[key] ?? "",
        dir: "auto",
        autocomplete: "off",
        spellcheck: "false",
        placeholder: "a word or a label",
        on: {
          input: () => tell(),
          change: () => go(),
          keydown: (event) => event.key === "Enter" && go(),
        },
      });
      return [input, h("label.field", h("span", label), input)];
    };
    const [inputA, labelA] = field("First term", "a");
    const [inputB, labelB] = field("Second term", "b");
    const place = h("div", { "aria-live": "polite" });
    const counts = h("p.soft.carried", { "aria-live": "polite" });
    const write = async () => {
      const mine = (told += 1);
      const found = await carried(bias, [inputA.value, inputB.value]);
      if (mine === told) counts.replaceChildren(...found.flat());
    };
    const tell = Dom.debounce(120, write);
    const go = async () => {
      const [a, b] = [inputA.value.trim(), inputB.value.trim()];
      Links.keep("bias", { a, b });
      write();
      const mine = (turn += 1);
      if (!a || !b) return void place.replaceChildren();
      const found = await answer(bias, samples, a, b);
      if (mine === turn) place.replaceChildren(...found);
      return undefined;
    };
    const fill = (term) => {
      (inputA.value.trim() ? inputB : inputA).value = term;
      go();
    };
    let [turn, told] = [0, 0];
    main.append(
      h("div.tools", labelA, labelB, h("button.button.strong", { type: "button", on: { click: go } }, "Check")),
      options,
      counts,
      suggestions(bias) ?? "",
      place,
      frequent(bias, fill),
    );
    if (Dictionary.run.shown > bias.samples.length)
      main.append(
        h(
          "p.soft",
          `The check looks at ${Format.count(bias.samples.length)} of the ${Format.count(Dictionary.run.shown)} samples.`,
        ),
      );
    await go();
    return undefined;
  };

  return { title: () => "Bias check", show };
})();
