// A map of the dictionary: latents whose decoder directions are alike lie close together.
"use strict";
const MapView = (() => {
  const { h, said } = Dom;
  const shades = 10;
  const shade = (branch) =>
    branch < 0 ? (Dictionary.run.branches.length ? "--faint" : "--dot") : `--branch-${branch % shades}`;

  const front = ({ colour }) => (["--line", "--faint"].includes(colour) ? 0 : 1); // what is bright is drawn last

  const show = async (main, _id, parameters) => {
    const { run, columns } = Dictionary;
    const hidden = new Set((parameters.hide ?? "").split(",").filter(Boolean).map(Number));
    const place = h("div.scatter", {
      role: "application",
      "aria-label": "Map of the latents. Arrow keys walk from latent to latent, Enter opens one.",
    });
    let mounted = null;
    let found = null;

    const draw = () => {
      mounted?.stop();
      const points = Array.from({ length: Dictionary.size }, (_, latent) => latent)
        .filter((latent) => columns.x[latent] !== null && !hidden.has(columns.branch[latent]))
        .map((latent) => ({
          latent,
          x: columns.x[latent],
          y: columns.y[latent],
          colour: found && !found.has(latent) ? "--line" : found ? "--accent" : shade(columns.branch[latent]),
        }))
        .sort((one, two) => front(one) - front(two));
      const bare = { show: false };
      const range = () => [-0.02, 1.02];
      mounted = Scatter.draw(place, points, {
        height: Math.min(760, Math.max(360, window.innerHeight - 360), place.clientWidth),
        scales: { x: { time: false, range }, y: { range } },
        axes: [bare, bare],
        named: points
          .filter(({ latent }) => columns.name[latent] !== null && (!found || found.has(latent)))
          .sort((one, two) => Dictionary.telling(two.latent) - Dictionary.telling(one.latent))
          .slice(0, 400),
        facts: (point) =>
          [run.branches[columns.branch[point.latent]], `fires in ${Format.share(Dictionary.meanRate(point.latent))}`]
            .filter(Boolean)
            .join(" · "),
      });
    };

    const search = Dom.debounce(60, async (text) => {
      found = text.trim() ? new Set((await Search.latents())(text)) : null;
      Links.keep("map", { hide: [...hidden].join(","), q: text.trim() });
      Dom.announce(found ? `${found.size} latents` : "");
      draw();
    });
    const input = h("input", {
      type: "search",
      value: parameters.q ?? "",
      placeholder: "Light up the latents about …",
      dir: "auto",
      "aria-label": "Light up the latents about",
      on: { input: () => search(input.value) },
    });

    const legend = () => {
      const counts = new Map();
      columns.branch.forEach(
        (branch, latent) => columns.x[latent] !== null && counts.set(branch, (counts.get(branch) ?? 0) + 1),
      );
      return h(
        "ul.legend",
        { "aria-label": "Branches of the taxonomy" },
        [...counts.keys()]
          .sort((a, b) => (a < 0) - (b < 0) || a - b)
          .map((branch) => {
            const button = h(
              "button.chip",
              {
                type: "button",
                "aria-pressed": String(!hidden.has(branch)),
                on: {
                  click: () => {
                    if (!hidden.delete(branch)) hidden.add(branch);
                    button.setAttribute("aria-pressed", String(!hidden.has(branch)));
                    Links.keep("map", { hide: [...hidden].join(","), q: input.value.trim() });
                    draw();
                  },
                },
              },
              h("i", { "aria-hidden": "true", style: { background: `var(${shade(branch)})` } }),
              branch < 0 ? "no branch" : said(run.branches[branch]),
              h("span.soft", Format.count(counts.get(branch))),
            );
            return h("li", button);
          }),
      );
    };

    main.append(
      h("h1", "A map of the latents"),
      h(
        "p.lead",
        `Latents that the ${Dictionary.streams.length > 1 ? "models write" : "model writes"} in similar directions lie close together. `,
        h(
          "span.soft",
          run.branches.length ? "A colour is the branch that most of a latent's samples belong to. " : "",
        ),
      ),
      h(
        "div.tools",
        columns.name.some((name) => name !== null) || run.has.captions ? h("div.search", input) : null,
        h("p.hint", Scatter.help()),
      ),
      ...(run.branches.length ? [legend()] : []),
      place,
    );
    if (parameters.q) found = new Set((await Search.latents())(parameters.q));
    draw();
    return () => mounted.stop();
  };

  return { title: () => "Map", show };
})();
