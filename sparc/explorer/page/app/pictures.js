// Pictures: thumbnails out of the sprites, and heat maps over them.
"use strict";
const Pictures = (() => {
  const { h } = Dom;

  // Each thumbnail is a canvas with a copy of its tile. A browser keeps whole sprites in memory, decoded, for half a gigabyte,
  // if style sheets show them; here a sprite is let go once the wanted tiles are cut out.
  const tilesKept = 240;
  const patience = 40; // milliseconds
  const tiles = new Map(); // number -> picture, in order of use
  const waiting = new Map(); // sprite -> Map of number -> canvases that wait for it
  const wanted = new WeakMap(); // canvas -> number

  const paint = (canvas, tile) => {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(tile, 0, 0);
  };

  const keepTile = (number, tile) => {
    tiles.delete(number);
    tiles.set(number, tile);
    if (tiles.size <= tilesKept) return;
    const [oldest, old] = tiles.entries().next().value;
    old.close();
    tiles.delete(oldest);
  };

  const cut = async (image, file) => {
    const { size, columns, rows } = Dictionary.run.sprite;
    const numbers = waiting.get(file);
    waiting.delete(file);
    for (const [number, canvases] of numbers) {
      const still = canvases.filter((canvas) => wanted.get(canvas) === number);
      if (!still.length) continue;
      const place = number % (columns * rows);
      const [x, y] = [(place % columns) * size, Math.floor(place / columns) * size];
      const tile = tiles.get(number) ?? (await createImageBitmap(image, x, y, size, size));
      still.filter((canvas) => wanted.get(canvas) === number).forEach((canvas) => paint(canvas, tile));
      keepTile(number, tile);
    }
  };

  // A sprite is not decoded for tiles that fast scrolling or typing has replaced in the meantime.
  const fetchSprite = (file) => {
    const wishes = [...waiting.get(file)].flatMap(([number, canvases]) => canvases.map((canvas) => [canvas, number]));
    if (!wishes.some(([canvas, number]) => wanted.get(canvas) === number)) return void waiting.delete(file);
    const image = new Image();
    image.onload = () => cut(image, file);
    image.onerror = () => waiting.delete(file); // the tiles stay empty
    return void (image.src = `sprites/${file}.webp`);
  };

  const request = (canvas, number) => {
    const { columns, rows } = Dictionary.run.sprite;
    const file = Math.floor(number / (columns * rows));
    if (!waiting.has(file)) {
      waiting.set(file, new Map());
      setTimeout(() => fetchSprite(file), patience);
    }
    const numbers = waiting.get(file);
    numbers.set(number, [...(numbers.get(number) ?? []), canvas]);
  };

  const draw = (canvas, number) => {
    if (wanted.get(canvas) === number) return;
    wanted.set(canvas, number);
    const tile = tiles.get(number);
    if (tile) {
      keepTile(number, tile);
      return paint(canvas, tile);
    }
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    return request(canvas, number);
  };

  // Makes an element the thumbnail of a number; `text` is what a screen reader says, "" where the words beside it say it.
  const show = (element, number, text) => {
    const empty = number === null || number === undefined || number < 0;
    const silent = empty || text === "";
    element.classList.toggle("empty", empty);
    for (const [name, value] of [
      ["aria-hidden", silent ? "true" : null],
      ["role", silent ? null : "img"],
      ["aria-label", silent ? null : (text ?? "picture without a caption")],
    ]) {
      if (value === null) element.removeAttribute(name);
      else element.setAttribute(name, value);
    }
    if (empty) return element.replaceChildren();
    const { size } = Dictionary.run.sprite;
    if (!element.firstChild) element.append(h("canvas", { width: size, height: size, "aria-hidden": "true" }));
    return draw(element.firstChild, number);
  };

  // A thumbnail as wide as its place.
  const thumbnail = (number, text) => {
    const element = h("span.thumb");
    show(element, number, text);
    return element;
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

  // Lets go of the pixels within an element that is removed; a browser would keep them until its next collection.
  const release = (element) => {
    for (const canvas of element.querySelectorAll("canvas")) {
      wanted.delete(canvas);
      canvas.width = canvas.height = 0;
    }
  };

  return { show, thumbnail, heatMap, release };
})();
