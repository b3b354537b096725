// The terms of the bias check: the samples that carry one, how many they are, and terms near one that too few carry.
"use strict";
const BiasTerms = (() => {
  const { h, said } = Dom;

  // The positions of a term: a label or word of the list, or else the samples whose captions hold all of its words.
  const positions = async (bias, term) => {
    const known =
      bias.terms.find((one) => one.term === term) ??
      bias.terms.find((one) => one.term.toLowerCase() === term.toLowerCase());
    if (known) return known.samples;
    const found = new Set((await Search.samples())(term, { whole: true }));
    return bias.samples.flatMap((sample, position) => (found.has(sample) ? [position] : []));
  };

  // The samples of each word of a term that has several; words that very many samples have, such as "of", tell nothing.
  const byWord = async (bias, text) => {
    const words = [...new Set(Search.tokens(text))];
    if (words.length < 2) return [];
    const found = await Promise.all(words.map((word) => positions(bias, word)));
    return found.filter((samples) => samples.length && samples.length < 0.3 * bias.samples.length);
  };

  // Terms near one that too few samples carry: those with words alike, and labels of most of the few samples that have it,
  // or have one of its words.
  const nearest = async (bias, text, own, other) => {
    const taken = new Set(other);
    const enough = (one) => one.samples.filter((sample) => !taken.has(sample)).length >= Coupling.fewest;
    const usable = bias.terms.filter((one) => one.term.toLowerCase() !== text.toLowerCase() && enough(one));
    const alike = await Search.among(
      usable.map((one) => one.term),
      text,
    );
    const groups = [own, ...(await byWord(bias, text))].filter((group) => group.length).map((group) => new Set(group));
    const most = (one, group) => 2 * one.samples.filter((sample) => group.has(sample)).length > group.size;
    const above = usable
      .filter((one) => one.kind === "label" && groups.some((group) => most(one, group)))
      .sort((one, two) => one.samples.length - two.samples.length);
    return [...new Map([...alike.map((place) => usable[place]), ...above].map((one) => [one.term, one])).values()].slice(0, 4);
  };

  // For each term that is too rare, a line that proposes others in its place.
  const proposals = (bias, pairs) =>
    Promise.all(
      pairs.map(async ({ text, own, other, otherText, first }) => {
        const found = await nearest(bias, text, own, other);
        if (!found.length)
          return h("p.suggest", "No term near “", said(text), "” is carried by enough samples; frequent terms stand below.");
        return h(
          "p.suggest",
          "Near “",
          said(text),
          "”, and carried by enough samples: ",
          found.map((one, place) => [
            place ? ", " : "",
            h(
              "a",
              { href: Links.to("bias", first ? { a: one.term, b: otherText } : { a: otherText, b: one.term }) },
              said(one.term),
            ),
            ` (${Format.count(one.samples.length)})`,
          ]),
          ".",
        );
      }),
    );

  // How many samples carry each of the terms that are typed, and whether they suffice.
  const carried = async (bias, terms) => {
    const typed = terms.map((term) => term.trim());
    const found = await Promise.all(typed.map((term) => (term ? positions(bias, term) : [])));
    const same = typed[0] === typed[1];
    const both = same ? 0 : found[0].filter((sample) => found[1].includes(sample)).length;
    return typed
      .map((term, place) => [term, found[place].length])
      .filter(([term]) => term)
      .map(([term, count], place) => [
        place ? "; " : "",
        said(term),
        `: ${count ? Format.plural(count, "sample") : "no sample"}`,
        both ? `, ${Format.count(count - both)} without the other` : "",
        count - both < Coupling.fewest ? ` (${Coupling.fewest} needed)` : "",
      ]);
  };

  return { positions, proposals, carried };
})();
