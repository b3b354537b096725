// Search as one types, by MiniSearch: words of any script, beginnings of words, and misspelt words where nothing else is found.
"use strict";
const Search = (() => {
  // Scripts without spaces are cut into characters, emoji stand alone, Latin letters lose their accents.
  const runs =
    /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]|\p{Extended_Pictographic}|[\p{L}\p{M}\p{N}]+/gu;
  const unspaced =
    /(?=[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}])/u;
  const tokens = (text) =>
    (
      text
        .normalize("NFKD")
        .toLowerCase()
        .replace(/[\u0300-\u036f]/g, "")
        .normalize("NFC")
        .match(runs) ?? []
    ).flatMap((run) => run.split(unspaced));

  const build = async (fields, documents) => {
    const index = new MiniSearch({
      fields: fields.map(([name]) => name),
      tokenize: tokens,
      processTerm: (term) => term,
    });
    await index.addAllAsync(documents, { chunkSize: 400 });
    const boost = Object.fromEntries(fields);
    // With `whole`, words match whole and as they are spelt.
    return (text, { whole = false } = {}) => {
      const options = { boost, prefix: !whole, combineWith: "AND" };
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

  return { latents, samples };
})();
