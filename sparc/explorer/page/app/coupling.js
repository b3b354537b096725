// The bias check: which latents fire with A and with B alike, more often than in samples of neither. Numbers only, no elements.
"use strict";
const Coupling = (() => {
  const falseDiscoveries = 0.05;
  const shuffles = 20;
  const fewest = 5; // samples of A alone and of B alone below which no test can say much
  const [neither, first, second, both] = [0, 1, 2, 3];

  // 16-bit numbers, little-endian, out of base64.
  const numbers = (text) => {
    const bytes = atob(text);
    const found = new Uint16Array(bytes.length / 2);
    for (let place = 0; place < found.length; place += 1)
      found[place] = bytes.charCodeAt(2 * place) | (bytes.charCodeAt(2 * place + 1) << 8);
    return found;
  };

  // The positions of the samples in which each latent of a stream fires: latents one after another, each up to where its end says.
  const unpacked = ({ counts, positions }) => {
    const sizes = numbers(counts);
    const ends = new Uint32Array(sizes.length);
    sizes.forEach((size, latent) => (ends[latent] = size + (latent ? ends[latent - 1] : 0)));
    return { ends, positions: numbers(positions) };
  };

  const start = ({ ends }, latent) => (latent ? ends[latent - 1] : 0);

  const load = async () => {
    const bias = await Data.loadOnce("bias");
    for (const stream of Object.keys(bias.fires)) bias.fires[stream] = unpacked(bias.fires[stream]);
    return bias;
  };

  const firing = (bias, stream, latent) => {
    const fires = bias.fires[stream];
    return Array.from(fires.positions.subarray(start(fires, latent), fires.ends[latent]));
  };

  // log(n!) for n below `count`.
  const logFactorials = (count) => {
    const table = new Float64Array(count);
    for (let n = 1; n < count; n += 1) table[n] = table[n - 1] + Math.log(n);
    return table;
  };

  // Fisher's exact test, one-sided: the probability of `hits` or more of `group` among those that fire,
  // when `hits` + `otherHits` fire among `group` + `others` samples.
  const fisher = (hits, group, otherHits, others, logs) => {
    const fires = hits + otherHits;
    const total = group + others;
    const ways = logs[fires] + logs[total - fires] + logs[group] + logs[others] - logs[total];
    let sum = 0;
    for (let k = hits; k <= Math.min(fires, group); k += 1) {
      const rest = fires - k;
      if (rest > others) continue;
      sum += Math.exp(ways - logs[k] - logs[group - k] - logs[rest] - logs[others - rest]);
    }
    return Math.min(1, sum);
  };

  // Log odds ratio with a half added to each cell (Haldane), and its 95 % interval.
  const logOdds = (hits, group, otherHits, others) => {
    const cells = [hits, group - hits, otherHits, others - otherHits].map((cell) => cell + 0.5);
    const value = Math.log((cells[0] * cells[3]) / (cells[1] * cells[2]));
    const half = 1.959964 * Math.sqrt(cells.reduce((sum, cell) => sum + 1 / cell, 0));
    return { value, low: value - half, high: value + half };
  };

  // Benjamini and Hochberg: the largest p that passes, over `tests` tests of which those not listed have a p too large to pass.
  const threshold = (values, tests) => {
    const sorted = Float64Array.from(values).sort();
    let passed = -1;
    sorted.forEach((p, rank) => {
      if (p <= (falseDiscoveries * (rank + 1)) / tests) passed = p;
    });
    return passed;
  };

  // Random numbers from a seed (mulberry32), so that two readers see the same shuffles.
  const random = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  const shuffled = (codes, next) => {
    const mixed = codes.slice();
    for (let index = mixed.length - 1; index > 0; index -= 1) {
      const other = Math.floor(next() * (index + 1));
      [mixed[index], mixed[other]] = [mixed[other], mixed[index]];
    }
    return mixed;
  };

  // 0 neither, 1 A alone, 2 B alone, 3 both, for each sample.
  const groups = (count, samplesA, samplesB) => {
    const codes = new Uint8Array(count);
    samplesA.forEach((sample) => (codes[sample] |= first));
    samplesB.forEach((sample) => (codes[sample] |= second));
    return codes;
  };

  const sizesOf = (codes, absent) => {
    const sizes = [0, 0, 0, 0];
    const out = new Set(absent);
    codes.forEach((code, sample) => out.has(sample) || (sizes[code] += 1));
    return sizes;
  };

  // One test per stream and latent: {stream, latent, p, hits, sizes}. Those whose p is above the rate of false discoveries are
  // left out, since they cannot pass.
  const tests = (bias, streams, codes, logs) =>
    streams.flatMap((stream) => {
      const sizes = sizesOf(codes, bias.absent?.[stream] ?? []);
      const known = new Map();
      const p = (hits, group, otherHits) => {
        const key = (hits * 4096 + otherHits) * 2 + (group === first ? 0 : 1);
        if (!known.has(key)) known.set(key, fisher(hits, sizes[group], otherHits, sizes[neither], logs));
        return known.get(key);
      };
      const found = [];
      const hits = new Uint32Array(4);
      const { ends, positions } = bias.fires[stream];
      ends.forEach((end, latent) => {
        hits.fill(0);
        for (let place = start(bias.fires[stream], latent); place < end; place += 1) hits[codes[positions[place]]] += 1;
        if (!hits[first] || !hits[second]) return;
        const larger = Math.max(p(hits[first], first, hits[neither]), p(hits[second], second, hits[neither]));
        if (larger <= falseDiscoveries) found.push({ stream, latent, hits: hits.slice(), sizes, p: larger });
      });
      return found;
    });

  const strength = ({ hits, sizes }) => {
    const odds = [first, second].map((group) => logOdds(hits[group], sizes[group], hits[neither], sizes[neither]));
    return odds[0].value <= odds[1].value ? odds[0] : odds[1];
  };

  const passing = (found, count) => {
    const limit = threshold(
      found.map((test) => test.p),
      count,
    );
    return found.filter((test) => test.p <= limit);
  };

  // The whole check of two terms (their positions in bias.samples).
  const check = (bias, streams, samplesA, samplesB) => {
    const count = bias.samples.length;
    const logs = logFactorials(count + 1);
    const codes = groups(count, samplesA, samplesB);
    const sizes = sizesOf(codes, []);
    const testCount = streams.reduce((sum, stream) => sum + bias.fires[stream].ends.length, 0);
    const few = sizes[first] < fewest || sizes[second] < fewest || sizes[neither] < fewest;
    const passed = passing(tests(bias, streams, codes, logs), testCount)
      .map((test) => ({ ...test, strength: strength(test) }))
      .sort((a, b) => b.strength.value - a.strength.value || a.latent - b.latent);
    const next = random(20250706);
    const chance = Array.from(
      { length: shuffles },
      () => passing(tests(bias, streams, shuffled(codes, next), logs), testCount).length,
    );
    return { passed, chance, sizes, few, fewest, testCount, codes };
  };

  return { load, firing, check, fewest, fisher, logFactorials, threshold, both };
})();
