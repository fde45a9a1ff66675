// Colour maps: 256 colours each, those of matplotlib, so that the viewer and our figures look alike.

const MAPS = fetch("/static/colours.json").then((response) => response.json());

export async function loadMap(name) {
  const hex = (await MAPS)[name];
  return Array.from({ length: 256 }, (_, i) => `#${hex.slice(6 * i, 6 * i + 6)}`);
}

// The place of a value in a map: 0 to 255, -1 if there is no value.
export function placeOf(value, [low, high]) {
  if (value === null || Number.isNaN(value)) return -1;
  return Math.max(0, Math.min(255, Math.floor((256 * (value - low)) / (high - low))));
}

export function drawBar(canvas, colours) {
  canvas.width = 256;
  canvas.height = 1;
  const context = canvas.getContext("2d");
  colours.forEach((colour, i) => {
    context.fillStyle = colour;
    context.fillRect(i, 0, 1, 1);
  });
}
