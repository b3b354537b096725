// The samples that activate a latent most, one column for each model: pictures with heat maps, or captions.
"use strict";
const TopSamples = (() => {
  const { h, said } = Dom;
  const { bar } = LatentParts;

  // One of the samples that activate it most: picture with heat map, or text, and a bar of the activation.
  const shown = ([sample, activation, heat], most, stream, samples) => {
    const text = Dictionary.sampleText(samples, sample);
    const thumb = samples.thumb[sample];
    const strength = h(
      "span.activation",
      bar(activation / most, `activation ${Format.measure(activation)}`),
      h("span.value", Format.measure(activation)),
    );
    const pictured = stream.modality !== "text" && thumb >= 0;
    const face = pictured ? h("span.face", Pictures.thumbnail(thumb, text)) : null;
    const anchor = h(
      `a.${pictured ? "shot" : "saying"}`,
      { href: Links.to(`sample/${sample}`), title: pictured ? text : null },
      face,
      pictured ? null : [thumb >= 0 ? Pictures.thumbnail(thumb, "") : null, h("span.text", said(text))],
      strength,
    );
    if (face && heat && stream.grid) {
      // Drawn on the first look, as most are never looked at.
      const look = () => face.querySelector(".heat") ?? face.append(Pictures.heatMap(heat, stream.grid));
      anchor.addEventListener("pointerenter", look);
      anchor.addEventListener("focus", look);
      anchor.look = look;
    }
    return h("li", anchor);
  };

  const column = (latent, detail, stream, index, samples) => {
    const top = detail.top[stream.name] ?? [];
    const most = Math.max(...top.map(([, activation]) => activation), 1e-9);
    const pictures = stream.modality !== "text" && top.some(([sample]) => samples.thumb[sample] >= 0);
    return h(
      "section.stream",
      h(
        "h3",
        said(stream.name),
        " ",
        h(
          "span.soft",
          [
            stream.modality === "unknown" ? "" : stream.modality,
            stream.random_weights ? "random weights, a control" : "",
          ]
            .filter(Boolean)
            .join(" · "),
        ),
      ),
      h(
        "p.rate-line",
        bar(Dictionary.rates[index][latent] / Math.max(...Dictionary.rates.map((rates) => rates[latent]), 1e-9), ""),
        h("span", `fires in ${Format.share(Dictionary.rates[index][latent])} of the samples`),
      ),
      top.length
        ? h(
            `ol.top.${pictures ? "pictures" : "texts"}`,
            top.map((one) => shown(one, most, stream, samples)),
          )
        : h("p.soft", "It never fires here."),
    );
  };

  const heatSwitch = (columns) => {
    const anchors = [...columns.querySelectorAll("a")].filter((anchor) => anchor.look);
    if (!anchors.length) return null;
    const button = h(
      "button.button",
      {
        type: "button",
        on: {
          click: () => {
            const on = columns.classList.toggle("heated");
            button.textContent = on ? "Hide where it fires" : "Show where it fires";
            if (on) anchors.forEach((anchor) => anchor.look());
          },
        },
      },
      "Show where it fires",
    );
    return button;
  };

  return { column, heatSwitch };
})();
