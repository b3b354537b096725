// A scatter of latents: uPlot draws the axes, a quadtree finds the point under the pointer, keys walk from point to point.
"use strict";
const Scatter = (() => {
  const { h } = Dom;

  // Writes the names of the first spots that find room beside their dots; the ones after them stay silent.
  const writeNames = (ctx, spots, box, size) => {
    const most = 40;
    const ratio = uPlot.pxRatio;
    const taken = [];
    const times = new Map(); // name -> how often it is written
    ctx.font = `${12 * ratio}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.textBaseline = "middle";
    ctx.fillStyle = Charts.colour("--ink");
    ctx.strokeStyle = Charts.colour("--surface");
    ctx.lineWidth = 3 * ratio;
    ctx.lineJoin = "round";
    for (const { point, left, top } of spots) {
      if (taken.length >= most) return;
      const name = Dictionary.title(point.latent);
      if ((times.get(name) ?? 0) >= 2) continue;
      const text = Format.first(name, 24);
      const width = ctx.measureText(text).width + 3 * ratio;
      const right = left + size + 3 * ratio;
      const start = right + width <= box.left + box.width ? right : left - size - 3 * ratio - width;
      const place = { left: start, top: top - 8 * ratio, right: start + width, bottom: top + 8 * ratio };
      const free = taken.every(
        (other) =>
          place.left > other.right || place.right < other.left || place.top > other.bottom || place.bottom < other.top,
      );
      if (!free || place.left < box.left || place.top < box.top || place.bottom > box.top + box.height)
        continue;
      taken.push(place);
      times.set(name, (times.get(name) ?? 0) + 1);
      ctx.strokeText(text, place.left, top);
      ctx.fillText(text, place.left, top);
    }
  };

  // Points are {latent, x, y, colour}; colours are names of custom properties of the style sheet. `named`: points whose names
  // are written where there is room, in this order.
  const draw = (place, points, { axes, scales, facts, named = [], height = 520 }) => {
    const tip = h("div.tip", { hidden: true });
    const live = points.filter(
      (point) => point.x !== null && point.y !== null && Number.isFinite(point.x) && Number.isFinite(point.y),
    );
    let tree = null;
    let chosen = null;
    const ratio = () => uPlot.pxRatio;

    const paint = (plot) => {
      const { ctx } = plot;
      const size = (live.length > 2000 ? 2 : live.length > 400 ? 3 : 4.5) * ratio();
      tree = d3
        .quadtree()
        .x((spot) => spot.left)
        .y((spot) => spot.top);
      const spots = live.map((point) => ({
        point,
        left: plot.valToPos(point.x, "x", true),
        top: plot.valToPos(point.y, "y", true),
      }));
      const { left, top, width, height: tall } = plot.bbox;
      const inside = spots.filter(
        (spot) =>
          spot.left >= left - 1 && spot.left <= left + width + 1 && spot.top >= top - 1 && spot.top <= top + tall + 1,
      );
      tree.addAll(inside);
      const colours = new Map();
      for (const spot of inside) {
        if (!colours.has(spot.point.colour)) colours.set(spot.point.colour, []);
        colours.get(spot.point.colour).push(spot);
      }
      ctx.save();
      ctx.globalAlpha = live.length > 2000 ? 0.6 : 0.75;
      for (const [name, group] of colours) {
        ctx.fillStyle = Charts.colour(name);
        ctx.beginPath();
        for (const spot of group) {
          ctx.moveTo(spot.left + size, spot.top);
          ctx.arc(spot.left, spot.top, size, 0, 2 * Math.PI);
        }
        ctx.fill();
      }
      ctx.globalAlpha = 1;
      if (named.length) {
        const spotOf = new Map(inside.map((spot) => [spot.point, spot]));
        writeNames(ctx, named.map((point) => spotOf.get(point)).filter(Boolean), plot.bbox, size);
      }
      const now = inside.find((spot) => spot.point === chosen);
      if (now) {
        ctx.strokeStyle = Charts.colour("--ink");
        ctx.lineWidth = 2 * ratio();
        ctx.beginPath();
        ctx.arc(now.left, now.top, size + 3 * ratio(), 0, 2 * Math.PI);
        ctx.stroke();
      }
      ctx.restore();
    };

    const choose = (spot) => {
      if (chosen === (spot?.point ?? null)) return;
      chosen = spot?.point ?? null;
      mounted.plot.redraw(false);
      tip.hidden = !chosen;
      if (!chosen) return;
      const thumbs = Dictionary.thumbs(chosen.latent);
      tip.replaceChildren(
        ...[
          thumbs.length ? Pictures.thumbnail(thumbs[0], "") : null,
          h("span", h("strong", LatentParts.title(chosen.latent)), h("span.soft", facts(chosen))),
        ].filter(Boolean),
      );
      const left = spot.left / ratio();
      const turned = left > place.clientWidth - 250;
      tip.style.setProperty("left", `${turned ? Math.max(0, left - 252) : left + 14}px`);
      tip.style.setProperty("top", `${Math.max(0, spot.top / ratio() - 20)}px`);
    };

    const open = () => {
      if (chosen) location.hash = Links.to(`latent/${chosen.latent}`);
    };

    // The nearest point in the direction of an arrow key, sideways distance counting double.
    const walk = (event) => {
      if (event.key === "Enter") return open();
      const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (!direction || !tree) return undefined;
      event.preventDefault();
      const spots = tree.data();
      const { left, top, width, height: tall } = mounted.plot.bbox;
      const from = spots.find((spot) => spot.point === chosen) ?? { left: left + width / 2, top: top + tall / 2 };
      let best = null;
      for (const spot of spots) {
        const ahead = (spot.left - from.left) * direction[0] + (spot.top - from.top) * direction[1];
        const aside = Math.abs((spot.left - from.left) * direction[1]) + Math.abs((spot.top - from.top) * direction[0]);
        if (ahead > 0.5 && aside <= ahead * 2 && (!best || ahead + 2 * aside < best.cost))
          best = { spot, cost: ahead + 2 * aside };
      }
      choose(best?.spot);
      if (chosen) Dom.announce(`${Dictionary.title(chosen.latent)}. ${facts(chosen)}`);
      return undefined;
    };

    place.replaceChildren();
    const mounted = Charts.mount(
      place,
      {
        height,
        mode: 1,
        scales,
        axes,
        cursor: { points: { show: false }, drag: { x: true, y: true, uni: 20 }, x: false, y: false },
        series: [{}, { paths: () => null, points: { show: false } }],
        hooks: { draw: [paint] },
      },
      [
        [0, 1],
        [0, 1],
      ],
    );
    const over = mounted.plot.over;
    let pressed = null;
    over.addEventListener("mousemove", (event) => {
      const box = over.getBoundingClientRect();
      const { left, top } = mounted.plot.bbox;
      choose(
        tree?.find(
          (event.clientX - box.left) * ratio() + left,
          (event.clientY - box.top) * ratio() + top,
          24 * ratio(),
        ),
      );
    });
    over.addEventListener("mouseleave", () => choose(null));
    over.addEventListener("mousedown", (event) => (pressed = [event.clientX, event.clientY]));
    over.addEventListener(
      "click",
      (event) => pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 4 && open(),
    );
    place.append(tip);
    place.tabIndex = 0;
    place.onkeydown = walk;
    return mounted;
  };

  // How to use it, with a mouse and with a finger; the style sheet shows one of the two.
  const help = () => [
    h("span.by-mouse", "Point at a dot to see its name, click to open it; drag to zoom, double click to go back."),
    h("span.by-touch", "Tap a dot to open its latent."),
  ];

  return { draw, help };
})();
