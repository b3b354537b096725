// Charts by uPlot: lines and histograms in the page's colours, as wide as their place.
"use strict";
const Charts = (() => {
  const { h } = Dom;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const font = () => `12px ${getComputedStyle(document.body).fontFamily}`;

  const axis = (label, more = {}) => ({
    label,
    size: 28,
    labelSize: 20,
    labelGap: 0,
    stroke: () => colour("--soft"),
    font: font(),
    labelFont: font(),
    grid: { stroke: () => colour("--line"), width: 1 },
    ticks: { show: false },
    ...more,
  });

  // Draws in a place that is in the document; redraws when the place or the colours change. Returns the plot.
  const mount = (place, options, data) => {
    const width = () => {
      const { paddingLeft, paddingRight } = getComputedStyle(place);
      return Math.max(200, place.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight));
    };
    const plot = new uPlot({ legend: { show: false }, ...options, width: width() }, data, place);
    const resized = new ResizeObserver(() => {
      if (!place.isConnected) return stop();
      if (Math.abs(plot.width - width()) > 1) plot.setSize({ width: width(), height: options.height });
    });
    const redraw = () => plot.redraw(false);
    const stop = () => {
      resized.disconnect();
      window.removeEventListener("themechange", redraw);
      plot.destroy();
    };
    resized.observe(place);
    window.addEventListener("themechange", redraw);
    return { plot, stop };
  };

  // A frame says in words what the chart shows; the chart is drawn once the frame is in the document.
  const frame = (text, draw) => {
    const place = h("div.chart", { role: "img", "aria-label": text });
    requestAnimationFrame(() => place.isConnected && draw(place));
    return place;
  };

  const lines = (text, x, series, { height = 200, xLabel = "" } = {}) =>
    frame(text, (place) =>
      mount(
        place,
        {
          height,
          scales: { x: { time: false }, y: {} },
          cursor: { y: false, points: { size: 6 } },
          axes: [
            axis(xLabel, { space: 60 }),
            axis("", {
              size: 54,
              values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : Format.compact(tick))),
            }),
          ],
          series: [
            {},
            ...series.map((one, index) => ({
              label: one.name,
              stroke: () => colour(`--series-${index % 6}`),
              width: 1.75,
              spanGaps: true,
              points: { show: one.values.length < 3 },
            })),
          ],
        },
        [x, ...series.map((one) => one.values)],
      ),
    );

  const key = (series) =>
    h(
      "p.key",
      series.map((one, index) =>
        h(
          "span",
          h("i", { "aria-hidden": "true", style: { background: `var(--series-${index % 6})` } }),
          Dom.said(one.name),
        ),
      ),
    );

  // The counts written beside a histogram: 0, the largest, and the one halfway where it is whole and there is room.
  const heights = (most) => (most > 0 && most % 2 === 0 ? [0, most / 2, most] : [0, Math.max(1, most)]);

  const histogram = (text, edges, counts) =>
    frame(text, (place) =>
      mount(
        place,
        {
          height: 130,
          scales: {
            x: { time: false, range: () => [edges[0], edges[edges.length - 1]] },
            y: { range: (_plot, _low, high) => [0, Math.max(1, high)] },
          },
          cursor: { show: false },
          axes: [
            axis("", { space: 50, grid: { show: false }, values: (_, ticks) => ticks.map(Format.compact) }),
            axis("", { size: 44, splits: () => heights(Math.max(0, ...counts)) }),
          ],
          series: [
            {},
            {
              paths: uPlot.paths.bars({ size: [0.92, Infinity], align: 1 }),
              fill: () => colour("--accent"),
              width: 0,
              points: { show: false },
            },
          ],
        },
        [edges.slice(0, -1), counts],
      ),
    );

  return { axis, colour, mount, lines, key, heights, histogram };
})();
