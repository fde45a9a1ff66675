// A view of the scan: deep zoom by OpenSeadragon, with marks (tiles or spots) painted over it.

import { placeOf } from "/static/colours.js";

/* global OpenSeadragon */

const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export class ScanView {
  // `slide` is the server's description; coordinates of marks are level-0 pixels of the scan.
  constructor(element, slide, path, withNavigator) {
    this.slide = slide;
    this.marks = null;
    this.look = { colours: null, limits: [0, 1], opacity: 0.8 };
    this.chosen = null;
    this.viewer = new OpenSeadragon.Viewer({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: withNavigator,
      navigatorPosition: "BOTTOM_LEFT",
      navigatorSizeRatio: 0.16,
      tileSources: {
        width: slide.width,
        height: slide.height,
        tileSize: slide.tile_px,
        tileOverlap: 0,
        minLevel: 8,
        maxLevel: Math.ceil(Math.log2(Math.max(slide.width, slide.height))),
        getTileUrl: (level, x, y) => `${path}/picture/${slide.version}/${level}/${x}_${y}.jpg`,
      },
      animationTime: still() ? 0 : 0.35,
      springStiffness: 9,
      maxZoomPixelRatio: 6,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.4,
      imageLoaderLimit: 6,
      timeout: 120000,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsPen: { clickToZoom: false },
    });
    // Its keys to turn and flip the picture would leave the marks behind.
    this.viewer.addHandler("canvas-key", (event) => {
      if (["r", "R", "f"].includes(event.originalEvent.key)) event.preventDefaultAction = true;
    });
    // Whether all that is in view is sharp: styles, tests and benchmarks may ask.
    element.dataset.loaded = "no";
    this.viewer.world.addHandler("add-item", ({ item }) => {
      item.addHandler("fully-loaded-change", ({ fullyLoaded }) => {
        element.dataset.loaded = fullyLoaded ? "yes" : "no";
      });
    });
    this.layer = document.createElement("canvas");
    this.layer.className = "marks";
    this.viewer.canvas.append(this.layer);
    const paint = () => this.paint();
    for (const name of ["update-viewport", "resize", "open", "animation-finish"]) this.viewer.addHandler(name, paint);
  }

  get image() {
    return this.viewer.world.getItemAt(0);
  }

  // marks: {x, y, value, side | radius, id}; side may be an array (tiles) or radius a number (spots).
  setMarks(marks) {
    this.marks = marks;
    this.paint();
  }

  setLook(look) {
    Object.assign(this.look, look);
    this.paint();
  }

  choose(index) {
    this.chosen = index;
    this.paint();
  }

  // Level-0 pixels to pixels of the element: a scale and an offset along each axis.
  transform() {
    const image = this.image;
    if (!image) return null;
    const origin = image.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const one = image.imageToViewerElementCoordinates(new OpenSeadragon.Point(1000, 1000 * this.slide.stretch_y));
    return { x: origin.x, y: origin.y, kx: (one.x - origin.x) / 1000, ky: (one.y - origin.y) / 1000 };
  }

  toScan(position) {
    const t = this.transform();
    return t && { x: (position.x - t.x) / t.kx, y: (position.y - t.y) / t.ky };
  }

  // The mark at a position of the element, or -1.
  markAt(position) {
    const at = this.toScan(position);
    const marks = this.marks;
    if (!at || !marks) return -1;
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < marks.x.length; i += 1) {
      const reachX = marks.radius ?? this.sideOf(marks, i) / 2;
      const reachY = marks.radius ?? reachX / this.slide.stretch_y;
      const dx = Math.abs(marks.x[i] - at.x) / reachX;
      const dy = Math.abs(marks.y[i] - at.y) / reachY;
      const far = Math.max(dx, dy);
      if (far <= 1 && far < least) {
        best = i;
        least = far;
      }
    }
    return best;
  }

  // Tiles of other tools come without a side: as far apart as they lie.
  sideOf(marks, i) {
    const side = Array.isArray(marks.side) ? marks.side[i] : marks.side;
    return side ?? marks.usualSide ?? 0;
  }

  paint() {
    const { layer, marks, look } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = layer.clientWidth;
    const height = layer.clientHeight;
    if (layer.width !== Math.round(width * ratio) || layer.height !== Math.round(height * ratio)) {
      layer.width = Math.round(width * ratio);
      layer.height = Math.round(height * ratio);
    }
    const context = layer.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const t = this.transform();
    if (!t || !marks || !look.colours) return;
    // One path a colour: tens of thousands of tiles take a few milliseconds.
    const paths = new Map();
    context.globalAlpha = look.opacity;
    for (let i = 0; i < marks.x.length; i += 1) {
      const place = placeOf(marks.value[i], look.limits);
      const box = place < 0 ? null : this.boxOf(t, i);
      if (!box || box.x > width || box.y > height || box.x + box.w < 0 || box.y + box.h < 0) continue;
      if (!paths.has(place)) paths.set(place, new Path2D());
      const path = paths.get(place);
      if (marks.radius) {
        path.moveTo(box.x + box.w, box.y + box.h / 2);
        path.ellipse(box.x + box.w / 2, box.y + box.h / 2, box.w / 2, box.h / 2, 0, 0, 2 * Math.PI);
      } else {
        path.rect(box.x, box.y, box.w, box.h);
      }
    }
    for (const [place, path] of paths) {
      context.fillStyle = look.colours[place];
      context.fill(path);
    }
    context.globalAlpha = 1;
    if (this.chosen !== null && this.chosen < marks.x.length) this.outline(context, this.boxOf(t, this.chosen));
  }

  boxOf(t, i) {
    const { marks } = this;
    const w = (marks.radius ? 2 * marks.radius : this.sideOf(marks, i)) * t.kx;
    const h = (marks.radius ? 2 * marks.radius * t.ky : (this.sideOf(marks, i) / this.slide.stretch_y) * t.ky);
    return { x: marks.x[i] * t.kx + t.x - w / 2, y: marks.y[i] * t.ky + t.y - h / 2, w, h };
  }

  outline(context, box) {
    for (const [colour, wide] of [["#000", 5], ["#fff", 2.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.strokeRect(box.x, box.y, box.w, box.h);
    }
  }

  // Bring a mark into view, without a change of zoom unless it would be a speck.
  show(index) {
    const { marks, slide } = this;
    const side = marks.radius ? 2 * marks.radius : this.sideOf(marks, index);
    const wide = Math.max(side * 8, 1);
    const viewport = this.viewer.viewport;
    const seen = this.image.viewportToImageRectangle(viewport.getBounds());
    const y = marks.y[index] * slide.stretch_y;
    if (seen.width > wide * 6) {
      viewport.fitBounds(this.image.imageToViewportRectangle(marks.x[index] - wide, y - wide, 2 * wide, 2 * wide));
    } else {
      viewport.panTo(this.image.imageToViewportCoordinates(marks.x[index], y));
    }
  }

  zoom(factor) {
    this.viewer.viewport.zoomBy(factor).applyConstraints();
  }

  home() {
    this.viewer.viewport.goHome();
  }
}

// Move two views together.
export function tie(one, other) {
  let follows = false;
  const follow = (from, to) => () => {
    if (follows || !to.viewer.isOpen()) return;
    follows = true;
    to.viewer.viewport.zoomTo(from.viewer.viewport.getZoom(), null, true);
    to.viewer.viewport.panTo(from.viewer.viewport.getCenter(), true);
    follows = false;
  };
  one.viewer.addHandler("viewport-change", follow(one, other));
  other.viewer.addHandler("viewport-change", follow(other, one));
  other.viewer.addHandler("open", follow(one, other));
}

// The usual side of tiles that came without one: the least distance along x between their columns.
export function usualSide(x) {
  const sorted = [...new Set(x)].sort((a, b) => a - b);
  let least = Infinity;
  for (let i = 1; i < sorted.length; i += 1) least = Math.min(least, sorted[i] - sorted[i - 1]);
  return Number.isFinite(least) ? least : 100;
}
