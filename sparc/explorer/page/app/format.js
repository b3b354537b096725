// Numbers as people read them.
"use strict";
const Format = (() => {
  const none = "–";
  const count = (value) => (value === null || value === undefined ? none : value.toLocaleString("en"));
  // A value that rounds to zero has no sign.
  const number = (value, digits = 2) =>
    value === null || value === undefined
      ? none
      : value
          .toFixed(digits)
          .replace(/^-(?=[0.]*$)/, "")
          .replace("-", "−");
  const share = (value) => {
    if (value === null || value === undefined) return none;
    const percent = value * 100;
    if (percent === 0) return "0\u00a0%";
    if (percent < 0.1) return `${percent.toPrecision(1)}\u00a0%`;
    return `${percent < 10 ? percent.toFixed(1) : percent.toFixed(0)}\u00a0%`;
  };
  const compact = (value) => {
    if (value === null || value === undefined) return none;
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(1).replace("-", "−");
    return value.toLocaleString("en", { maximumSignificantDigits: 3 }).replace("-", "−");
  };
  // Measures and activations: three decimals, as the tables of the terminal have them.
  const measure = (value) =>
    value === null || value === undefined || Number.isInteger(value) || Math.abs(value) >= 10 || Math.abs(value) < 5e-4
      ? compact(value)
      : number(value, 3);
  const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
  // The first letters of a text, none of them cut: an emoji or an accented letter may be several code points.
  const letters = new Intl.Segmenter();
  const first = (text, most) =>
    Array.from(letters.segment(text.slice(0, most * 20)), ({ segment }) => segment)
      .slice(0, most)
      .join("");
  return { first, count, number, share, compact, measure, plural };
})();
