// Parts that stand for a latent: the card of the grid, the small row of lists, bars, badges.
"use strict";
const LatentParts = (() => {
  const { h, said } = Dom;

  // A bar that says `text` to a screen reader, or nothing where the words beside it do.
  const bar = (value, text) =>
    h("span.bar", {
      ...(text ? { role: "img", "aria-label": text } : { "aria-hidden": "true" }),
      style: { "--share": `${100 * Math.min(1, Math.max(0, value || 0))}%` },
    });

  const title = (latent) => {
    const also = Dictionary.also(latent);
    return also ? [said(Dictionary.title(latent)), h("span.also", " also ", said(also))] : said(Dictionary.title(latent));
  };
  const link = (latent) => h("a", { href: Links.to(`latent/${latent}`) }, title(latent));

  // In lists, where many latents share a name: its picture, its name and its number.
  const mention = (latent) =>
    h(
      "a.mention",
      { href: Links.to(`latent/${latent}`) },
      Dictionary.thumbs(latent).length ? Pictures.thumbnail(Dictionary.thumbs(latent)[0], "") : null,
      h("span.name", title(latent)),
      Dictionary.columns.name[latent] === null ? null : h("span.soft", String(latent)),
    );

  const badge = (latent) => {
    const state = Dictionary.state(latent);
    return h(`span.badge.${state.name}`, { title: state.read }, state.label);
  };

  // How many of the samples carry the name, or why there is none; "" where no run like this has names.
  const surety = (latent) => {
    const { named_by: by, sure } = Dictionary.columns;
    const { labels, captions } = Dictionary.run.has;
    if (by[latent] === 0) return labels || captions ? "no name found" : "";
    return sure[latent] === null ? "" : `fits ${Math.round(sure[latent] * 100)}\u00a0%`;
  };

  // The same in one line, with the number and a further word of a latent that has a name.
  const line = (latent) => {
    const also = Dictionary.also(latent);
    const named = Dictionary.columns.name[latent] !== null;
    return [named ? latent : "", surety(latent), also && `also ${also}`].filter((part) => part !== "").join(" · ");
  };

  // The caption of its top sample beside its pictures, which tells latents of one name apart; null without both.
  const exampleText = (latent) =>
    Dictionary.thumbs(latent).length ? (Dictionary.columns.caption[latent] ?? null) : null;
  const example = (latent) => {
    const caption = exampleText(latent);
    return caption === null
      ? null
      : h(
          "span.example",
          { title: "The caption that activates it most; not that of the pictures" },
          "text: “",
          said(caption),
          "”",
        );
  };

  // A small tile: picture, name and what there is to say about it.
  const tile = (latent, first, ...more) =>
    h(
      `a.tile${Dictionary.run.has.images ? "" : ".plain"}`,
      { href: Links.to(`latent/${latent}`) },
      Dictionary.run.has.images ? Pictures.thumbnail(Dictionary.thumbs(latent)[0], "") : null,
      h(
        "span.tile-text",
        h("span.name", said(Dictionary.title(latent)), Dictionary.columns.name[latent] === null ? null : h("span.also", ` ${latent}`)),
        Dictionary.columns.name[latent] === null ? example(latent) : null,
        h("span.soft", first, Dictionary.also(latent) ? [" · also ", said(Dictionary.also(latent))] : null, more),
      ),
    );

  return { bar, title, link, mention, badge, surety, line, exampleText, tile };
})();
