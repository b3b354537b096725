// Search as one types, by MiniSearch: words of any script, beginnings of words, and misspelt words where nothing else is found.
"use strict";
const Search = (() => {
  // Scripts without spaces are cut into characters, emoji stand alone, Latin letters lose their accents.
  // An emoji of several code points, such as a flag or a health worker of some skin tone, is one word.
  const runs =
    /\p{RI}{2}|\p{ExtPict}\p{EMod}?[\u{e0020}-\u{e007f}]*(?:\u200d\p{ExtPict}\p{EMod}?)*|[0-9#*]\u20e3|[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]|[\p{L}\p{M}\p{N}]+/gu;
  const unspaced =
    /(?=[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}])/u;
  const plain = /^[\x00-\x7f]*$/;
  const tokens = (text) => {
    if (plain.test(text)) return text.toLowerCase().match(/[a-z0-9]+/g) ?? [];
    const folded = text
      .normalize("NFKD")
      .toLowerCase()
      .replace(/[\u0300-\u036f\ufe0e\ufe0f]/g, "")
      .normalize("NFC");
    return (folded.match(runs) ?? []).flatMap((run) => (unspaced.test(run) ? run.split(unspaced) : run));
  };

  // Words that are as frequent as this share of the texts, such as "a" and "of", are left out where others are sought too: they would
  // find nearly everything, and cost the most time and memory.
  const common = 0.3;
  const letter = /^[a-z]$/;

  const build = async (fields, documents) => {
    const times = new Map();
    const index = new MiniSearch({
      fields: fields.map(([name]) => name),
      tokenize: (text) => {
        const found = tokens(text);
        for (const token of found) times.set(token, (times.get(token) ?? 0) + 1);
        return found;
      },
      processTerm: (term) => term,
    });
    await index.addAllAsync(documents, { chunkSize: 400 });
    const most = common * Math.max(100, documents.length);
    const telling = (token, place, all) =>
      place === all.length - 1 ? !letter.test(token) : (times.get(token) ?? 0) <= most;
    const sought = (text) => {
      const found = tokens(text);
      const kept = found.filter(telling);
      return kept.length ? kept : found.slice(-1);
    };
    const boost = Object.fromEntries(fields);
    // With `whole`, words match whole and as they are spelt.
    return (text, { whole = false } = {}) => {
      // A word before the last one is as a rule whole.
      const prefix = (term, place, terms) => !whole && (place === terms.length - 1 || term.length > 3);
      const options = { boost, prefix, combineWith: "AND", tokenize: whole ? tokens : sought };
      const exact = index.search(text, options);
      const similar = !exact.length && !whole;
      const found = (similar ? index.search(text, { ...options, fuzzy: 0.34 }) : exact).map((result) => result.id);
      return Object.assign(found, { similar: similar && found.length > 0 });
    };
  };

  const once = (make) => {
    let promise = null;
    return () => (promise ??= make());
  };

  const latents = once(() => {
    const { name, caption, state } = Dictionary.columns;
    const all = Array.from({ length: Dictionary.size }, (_, id) => id).filter((id) => state[id] !== 2);
    return build(
      [
        ["name", 4],
        ["words", 2],
        ["caption", 1],
      ],
      all.map((id) => ({ id, name: name[id] ?? "", words: Dictionary.words(id), caption: caption[id] ?? "" })),
    );
  });

  const samples = once(async () => {
    const columns = await Data.load("samples");
    return build(
      [
        ["caption", 2],
        ["key", 1],
      ],
      columns.id.map((key, id) => ({ id, key, caption: columns.caption[id] ?? "" })),
    );
  });

  // The places of the texts that share words with one, the nearest first.
  const among = async (texts, text) => {
    const index = new MiniSearch({ fields: ["text"], tokenize: tokens, processTerm: (term) => term });
    await index.addAllAsync(texts.map((one, id) => ({ id, text: one })));
    const near = (term) => (term.length > 4 ? 0.2 : false);
    return index
      .search(text, { prefix: (term) => term.length > 3, fuzzy: near, combineWith: "OR" })
      .map(({ id }) => id);
  };

  return { latents, samples, among, tokens };
})();
