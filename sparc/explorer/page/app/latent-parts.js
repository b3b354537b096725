// Parts that stand for a concept: the card of the grid, the small row of lists, bars, badges.
"use strict";
const LatentParts = (() => {
  const { h, said } = Dom;

  // A bar that says `text` to a screen reader, or nothing where the words beside it do.
  const bar = (value, text) =>
    h(
      "span.bar",
      text ? { role: "img", "aria-label": text } : { "aria-hidden": "true" },
      h("span", { style: { width: `${100 * Math.min(1, Math.max(0, value || 0))}%` } }),
    );

  const title = (latent) => said(Dictionary.title(latent));
  const link = (latent) => h("a", { href: Links.to(`latent/${latent}`) }, title(latent));

  // In lists, where many concepts share a name: its picture, its name and its number.
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

  // Short: how many of the samples carry the name, or why there is none.
  const surety = (latent) => {
    const { named_by: by, sure } = Dictionary.columns;
    if (by[latent] === 0) return "no name found";
    return `${by[latent] === 1 ? "label" : "words"}${sure[latent] === null ? "" : `, fits ${Math.round(sure[latent] * 100)}\u00a0%`}`;
  };

  const picture = (latent) => {
    const caption = Dictionary.columns.caption[latent];
    const thumbs = Dictionary.thumbs(latent).slice(0, 3);
    if (!thumbs.length) return h("span.quote", caption ? said(caption) : h("span.soft", "no picture"));
    return h(
      `span.mosaic.of${thumbs.length}`,
      thumbs.map((thumb, place) => Pictures.thumbnail(thumb, place ? "" : caption)),
    );
  };

  // The caption of its top sample, which tells concepts of one name apart.
  const example = (latent) => {
    const caption = Dictionary.columns.caption[latent];
    return caption && Dictionary.thumbs(latent).length
      ? h("span.example", { title: "The caption that activates it most; not that of the pictures" }, "text: “", said(caption), "”")
      : null;
  };

  const streamBars = (latent) => {
    const most = Math.max(...Dictionary.rates.map((rates) => rates[latent]), 1e-9);
    return h(
      "span.rates",
      Dictionary.streams.slice(0, 4).map((name, stream) => {
        const rate = Dictionary.rates[stream][latent];
        return h(
          "span.rate",
          said(name),
          bar(rate / most, `fires in ${Format.share(rate)} of the samples of ${name}`),
          h("span.value", Format.share(rate)),
        );
      }),
    );
  };

  const card = (latent) => {
    const agreement = Dictionary.columns.agreement[latent];
    return h(
      "a.card",
      { href: Links.to(`latent/${latent}`) },
      looks() ? picture(latent) : null,
      h(
        "span.body",
        h("span.name", title(latent)),
        h(
          "span.line",
          h("span.soft", { title: "Concept, kind of its name, and share of its samples that carry the name" }, `${latent} · ${surety(latent)}`), Dictionary.columns.state[latent] === 0 ? null : badge(latent),
        ),
        example(latent),
        streamBars(latent),
        agreement === null
          ? null
          : h("span.line.foot", h("span.soft", "agreement"), h("span.value", Format.number(agreement))),
      ),
    );
  };
  const looks = () => Dictionary.run.has.images || Dictionary.run.has.captions;
  const cardHeight = (width) => {
    const { run, streams } = Dictionary;
    return (
      (looks() ? (width * 2) / 3 : 0) +
      80 +
      21 * Math.min(4, streams.length) +
      (streams.length > 1 ? 26 : 0) +
      (run.has.images && run.has.captions ? 26 : 0)
    );
  };

  // A small tile: picture, name and what there is to say about it.
  const tile = (latent, ...facts) =>
    h(
      `a.tile${Dictionary.run.has.images ? "" : ".plain"}`,
      { href: Links.to(`latent/${latent}`) },
      Dictionary.run.has.images ? Pictures.thumbnail(Dictionary.thumbs(latent)[0], "") : null,
      h(
        "span.tile-text",
        h("span.name", title(latent)),
        Dictionary.columns.name[latent] === null ? example(latent) : null,
        h("span.soft", facts),
      ),
    );

  return { bar, title, link, mention, badge, surety, card, cardHeight, tile };
})();
