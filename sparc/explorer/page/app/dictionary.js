// The dictionary: the columns of data/run.js and data/latents.js, and what every view derives from them.
"use strict";
const Dictionary = (() => {
  const states = [
    { name: "shared", label: "Shared", read: "It fires in every stream." },
    { name: "some", label: "Some streams", read: "It fires in some streams and never in the others." },
    { name: "dead", label: "Dead", read: "It fires in no stream." },
    {
      name: "duplicate",
      label: "Duplicate",
      read: "It points the same way as an earlier latent in every stream.",
    },
  ];
  let order = null;
  const dictionary = { states, run: null, columns: null };

  dictionary.load = async () => {
    [dictionary.run, dictionary.columns] = await Promise.all([Data.load("run"), Data.load("latents")]);
    dictionary.size = dictionary.run.n_latents;
    dictionary.streams = dictionary.run.streams.map((stream) => stream.name);
    dictionary.rates = dictionary.streams.map((name) => dictionary.columns.rate[name]);
    if (dictionary.streams.length === 1) Object.assign(states[0], { label: "Live", read: "It fires." });
  };

  dictionary.title = (latent) => dictionary.columns.name[latent] ?? `Latent ${latent}`;
  // A further confirmed word or label, which tells latents of one name apart; "" without one.
  dictionary.also = (latent) => dictionary.columns.also?.[latent] ?? "";
  dictionary.state = (latent) => states[dictionary.columns.state[latent]];
  dictionary.meanRate = (latent) =>
    dictionary.rates.reduce((sum, rates) => sum + rates[latent], 0) / dictionary.rates.length;
  dictionary.thumbs = (latent) => {
    const { thumbs, thumb } = dictionary.columns;
    return thumbs?.[latent] ?? (thumb[latent] >= 0 ? [thumb[latent]] : []);
  };
  dictionary.words = (latent) => dictionary.columns.words?.[latent] ?? "";

  // How telling: agreement and certainty of the name, both drawn to zero where few samples speak for them.
  dictionary.telling = (latent) => {
    const fires = dictionary.meanRate(latent) * dictionary.run.shown;
    const known = [dictionary.columns.agreement[latent], dictionary.columns.sure[latent] ?? 0].filter(
      (value) => value !== null,
    );
    return (known.reduce((sum, value) => sum + value, 0) / known.length) * (fires / (fires + 6));
  };

  // All latents, the telling ones first; each further one of a name counts less, so that the first ones are of many kinds.
  dictionary.tellingOrder = () => {
    if (order) return order;
    const { name } = dictionary.columns;
    const scores = Array.from({ length: dictionary.size }, (_, latent) => dictionary.telling(latent));
    const first = (one, two) => scores[two] - scores[one] || one - two;
    const times = new Map();
    order = scores.map((_, latent) => latent).sort(first);
    for (const latent of order) {
      if (name[latent] === null) continue;
      const before = times.get(name[latent]) ?? 0;
      times.set(name[latent], before + 1);
      scores[latent] *= 0.75 ** before;
    }
    return order.sort(first);
  };

  // Samples that fire in stream a, in stream b and in both, among the samples that have both; null where unknown.
  dictionary.pair = (first, second) => {
    const { pairs } = dictionary.columns;
    if (pairs?.[`${first}>${second}`]) return pairs[`${first}>${second}`];
    const turned = pairs?.[`${second}>${first}`];
    return turned ? { a: turned.b, b: turned.a, both: turned.both } : null;
  };

  dictionary.detail = async (latent) => {
    const size = dictionary.run.chunk.latents;
    return (await Data.load(`latent/${Math.floor(latent / size)}`))[latent % size];
  };
  dictionary.sample = async (sample) => {
    const size = dictionary.run.chunk.samples;
    return (await Data.load(`sample/${Math.floor(sample / size)}`))[sample % size];
  };
  dictionary.sampleText = (samples, sample) => samples.caption[sample] ?? samples.id[sample];

  return dictionary;
})();
