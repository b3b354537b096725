// The card of a latent in the grid: made once, then filled for one latent after another.
"use strict";
const LatentCard = (() => {
  const { h } = Dom;
  const streamsShown = 4;

  const kinds = [
    "",
    "number, share of its samples that carry the label, and a further label or word",
    "number, share of its samples whose captions have the word, and a further word",
  ];
  const said = () => h("bdi", { dir: "auto" });
  const looks = () => Dictionary.run.has.images || Dictionary.run.has.captions;

  // Pictures of its top samples, or its top caption where there are none.
  const picture = () => {
    const thumbs = Array.from({ length: 3 }, () => h("span.thumb"));
    const mosaic = h("span.mosaic");
    const text = said();
    const quote = h("span.quote", text);
    const place = h("span.look", quote);
    const show = (latent) => {
      const numbers = Dictionary.thumbs(latent).slice(0, thumbs.length);
      const caption = Dictionary.columns.caption[latent];
      if (place.firstChild !== (numbers.length ? mosaic : quote)) place.replaceChildren(numbers.length ? mosaic : quote);
      if (!numbers.length) {
        quote.classList.toggle("soft", !caption);
        return void Dom.write(text, caption ?? "no picture");
      }
      mosaic.className = `mosaic of${numbers.length}`;
      if (mosaic.childElementCount !== numbers.length) mosaic.replaceChildren(...thumbs.slice(0, numbers.length));
      return numbers.forEach((number, at) => Pictures.show(thumbs[at], number, at ? "" : caption));
    };
    return { element: place, show };
  };

  const rate = (stream) => {
    const name = Dictionary.streams[stream];
    const bar = h("span.bar", { role: "img" });
    const value = h("span.value");
    const show = (latent, most) => {
      const share = Dictionary.rates[stream][latent];
      const text = Format.share(share);
      bar.style.setProperty("--share", `${(100 * share) / most}%`);
      bar.setAttribute("aria-label", `fires in ${text} of the samples of ${name}`);
      Dom.write(value, text);
    };
    return { element: h("span.rate", Dom.said(name), bar, value), show };
  };

  // latentOf(index): the latent that the grid has at an index.
  const make = (latentOf) => {
    const face = looks() ? picture() : null;
    const [name, caption] = [said(), said()];
    const surety = h("span.soft", { dir: "auto" });
    const badge = h("span.badge");
    const line = h("span.line", surety);
    const example = h(
      "span.example",
      { title: "The caption that activates it most; not that of the pictures" },
      "text: “",
      caption,
      "”",
    );
    const rates = Dictionary.streams.slice(0, streamsShown).map((_, stream) => rate(stream));
    const agreement = h("span.value");
    const body = h(
      "span.body",
      h("span.name", name),
      line,
      h(
        "span.rates",
        rates.map(({ element }) => element),
      ),
      Dictionary.streams.length > 1 ? h("span.line.foot", h("span.soft", "agreement"), agreement) : null,
    );
    const element = h("a.card", face?.element, body);

    const show = (index) => {
      const latent = latentOf(index);
      const { columns } = Dictionary;
      element.setAttribute("href", Links.to(`latent/${latent}`));
      face?.show(latent);
      Dom.write(name, Dictionary.title(latent));
      Dom.write(surety, LatentParts.line(latent));
      surety.title = kinds[columns.named_by[latent]];
      const state = Dictionary.state(latent);
      Dom.keep(line, badge, columns.state[latent] !== 0);
      badge.className = `badge ${state.name}`;
      badge.title = state.read;
      Dom.write(badge, state.label);
      const text = LatentParts.exampleText(latent);
      Dom.keep(body, example, text !== null, line.nextSibling);
      Dom.write(caption, text ?? "");
      const most = Math.max(...Dictionary.rates.map((values) => values[latent]), 1e-9);
      rates.forEach((one) => one.show(latent, most));
      Dom.write(agreement, Format.number(columns.agreement[latent]));
    };
    return { element, show };
  };

  const height = (width) => {
    const { run, streams } = Dictionary;
    return (
      (looks() ? (width * 2) / 3 : 0) +
      80 +
      21 * Math.min(streamsShown, streams.length) +
      (streams.length > 1 ? 26 : 0) +
      (run.has.images && run.has.captions ? 26 : 0)
    );
  };

  return { make, height };
})();
