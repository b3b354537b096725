// Pictures: thumbnails out of the sprite sheets, and heat maps over them.
"use strict";
const Pictures = (() => {
  const { h } = Dom;

  // The thumbnail of a number as an element that is as wide as its place; `text` is what a screen
  // reader says, "" where the words beside the picture say it.
  const thumbnail = (number, text) => {
    if (number === null || number === undefined || number < 0) return h("span.thumb.empty", { "aria-hidden": "true" });
    const { columns, rows } = Dictionary.run.sprite;
    const tile = number % (columns * rows);
    const file = Math.floor(number / (columns * rows));
    const at = (index, of) => (of > 1 ? `${(100 * index) / (of - 1)}%` : "0");
    return h("span.thumb", {
      ...(text === "" ? { "aria-hidden": "true" } : { role: "img", "aria-label": text ?? "picture without a caption" }),
      style: {
        "background-image": `url("sprites/${file}.webp")`,
        "background-size": `${columns * 100}% ${rows * 100}%`,
        "background-position": `${at(tile % columns, columns)} ${at(Math.floor(tile / columns), rows)}`,
      },
    });
  };

  const accent = () => getComputedStyle(document.documentElement).getPropertyValue("--heat").split(",").map(Number);

  // The heat map of a latent: h x w bytes, drawn one pixel each and stretched over the picture.
  const heatMap = (bytes, [height, width]) => {
    const canvas = h("canvas.heat", { width, height, "aria-hidden": "true" });
    const values = Uint8Array.from(atob(bytes), (character) => character.charCodeAt(0));
    const [red, green, blue] = accent();
    const image = new ImageData(width, height);
    for (let index = 0; index < height * width; index += 1)
      image.data.set([red, green, blue, (values[index] ?? 0) * 0.85], index * 4);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  };

  return { thumbnail, heatMap };
})();
