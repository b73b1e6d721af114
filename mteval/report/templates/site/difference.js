"use strict";
// Maps of what changed between two images, drawn from the thumbnails: the mean absolute difference of red, green and blue.
const difference = (() => {
  const FULL = 0.25; // the difference from which on a pixel has the strongest colour
  // From dark blue over grey to yellow (the shape of "cividis"), which colour-blind readers see as dark to light.
  const STOPS = [[0, 34, 78], [50, 68, 109], [102, 105, 112], [149, 143, 120], [203, 186, 105], [254, 232, 56]];
  const COLOURS = Array.from({ length: 256 }, (_, index) => {
    const at = (index / 255) * (STOPS.length - 1);
    const low = Math.min(Math.floor(at), STOPS.length - 2);
    return STOPS[low].map((part, k) => Math.round(part + (at - low) * (STOPS[low + 1][k] - part)));
  });

  async function pixels(uri, width, height) {
    const image = new Image();
    image.src = uri;
    await image.decode();
    const canvas = make("canvas", { width: width ?? image.naturalWidth, height: height ?? image.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }

  // Draw onto a canvas; an earlier image of another size is stretched to that of the later one.
  async function paint(canvas, before, after) {
    const now = await pixels(after);
    const then = await pixels(before, now.width, now.height);
    canvas.width = now.width;
    canvas.height = now.height;
    const map = new ImageData(now.width, now.height);
    for (let at = 0; at < map.data.length; at += 4) {
      const moved = (Math.abs(now.data[at] - then.data[at]) + Math.abs(now.data[at + 1] - then.data[at + 1]) + Math.abs(now.data[at + 2] - then.data[at + 2])) / 765;
      map.data.set(COLOURS[Math.min(255, Math.round((moved / FULL) * 255))], at);
      map.data[at + 3] = 255;
    }
    canvas.getContext("2d").putImageData(map, 0, 0);
    canvas.classList.toggle("small", Math.max(map.width, map.height) <= 128);
  }

  const scale = () => make("span", { class: "scale" }, "Maps of change: none", make("i", { "aria-hidden": "true" }), `${FULL * 100} % or more`);
  return { paint, scale };
})();
