// Regions that a person draws: polygons over the scan, saved as the GeoJSON that edits the tissue mask.

import { ask, save } from "/static/api.js";

const SVG = "http://www.w3.org/2000/svg";
const CLASSES = {
  Tissue: "Tissue: replaces the mask",
  Region: "Region: keeps only what lies inside",
  Ignore: "Ignore: is cut out",
};

export class Regions {
  // `tell` says a line to the user. `parts` are the elements of the panel.
  constructor(view, path, parts, tell) {
    Object.assign(this, { view, path: `${path}/regions`, parts, tell });
    this.polygons = []; // {name, rings: [[[x, y], …], …]}, level-0 pixels
    this.draft = null;
    this.digest = null;
    this.changed = false;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.classList.add("regions");
    this.svg.setAttribute("aria-hidden", "true");
    view.viewer.canvas.append(this.svg);
    for (const name of ["update-viewport", "resize", "open"]) view.viewer.addHandler(name, () => this.draw());
    view.viewer.addHandler("canvas-click", (event) => {
      if (this.draft && event.quick) {
        event.preventDefaultAction = true;
        this.add(event.position);
      }
    });
    view.viewer.addHandler("canvas-double-click", (event) => {
      if (this.draft) {
        event.preventDefaultAction = true;
        this.finish();
      }
    });
    parts.draw.addEventListener("click", () => (this.draft ? this.finish() : this.start()));
    parts.save.addEventListener("click", () => this.save());
    for (const [name, text] of Object.entries(CLASSES)) parts.name.add(new Option(text, name));
    window.addEventListener("beforeunload", (event) => {
      if (this.changed) event.preventDefault();
    });
  }

  get isDrawing() {
    return this.draft !== null;
  }

  async load() {
    const found = await ask(this.path);
    this.digest = found.digest;
    this.polygons = found.regions.features.map((feature) => ({
      name: feature.properties.classification.name || "Region",
      rings: feature.geometry.coordinates,
    }));
    this.show(false);
  }

  start() {
    this.draft = [];
    this.tell("Click to set corners. Enter or a double click ends the region, Backspace takes a corner back, Escape gives up.");
    this.show(this.changed);
  }

  add(position) {
    const at = this.view.toScan(position);
    const last = this.draft.at(-1);
    // The second click of a double click is no corner of its own.
    const t = this.view.transform();
    if (last && Math.hypot((last[0] - at.x) * t.kx, (last[1] - at.y) * t.ky) < 4) return;
    this.draft.push([Math.round(at.x), Math.round(at.y)]);
    this.draw();
  }

  finish() {
    if (this.draft.length < 3) {
      this.tell("A region has at least three corners.");
      return;
    }
    this.polygons.push({ name: this.parts.name.value, rings: [[...this.draft, this.draft[0]]] });
    this.draft = null;
    this.tell("Region added. Save keeps it.");
    this.show(true);
  }

  // Keys while a region is drawn. Returns whether the key was one of them.
  onKey(key) {
    if (!this.draft) return false;
    if (key === "Enter") this.finish();
    else if (key === "Escape") this.draft = null;
    else if (key === "Backspace") this.draft.pop();
    else return false;
    this.show(this.changed);
    return true;
  }

  async save() {
    const features = this.polygons.map(({ name, rings }) => ({
      type: "Feature",
      properties: { objectType: "annotation", classification: { name } },
      geometry: { type: "Polygon", coordinates: rings },
    }));
    const regions = { type: "FeatureCollection", features };
    try {
      this.digest = (await save(this.path, { regions, before: this.digest })).digest;
    } catch (error) {
      this.tell(error.message, true);
      return;
    }
    this.tell(`Regions saved. The tiles follow with: stpath-assets run ${this.view.slide.slide_id}`);
    this.show(false);
  }

  show(changed) {
    this.changed = changed;
    this.parts.draw.setAttribute("aria-pressed", String(this.isDrawing));
    this.parts.draw.textContent = this.isDrawing ? "End the region" : "Draw a region";
    this.parts.save.disabled = !changed || this.isDrawing;
    this.parts.list.replaceChildren(...this.polygons.map((polygon, i) => this.item(polygon, i)));
    this.draw();
  }

  item(polygon, i) {
    const item = document.createElement("li");
    const name = document.createElement("span");
    name.textContent = `${polygon.name}, ${polygon.rings[0].length - 1} corners`;
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "Remove";
    remove.setAttribute("aria-label", `Remove region ${i + 1}, ${polygon.name}`);
    remove.addEventListener("click", () => {
      this.polygons.splice(i, 1);
      this.show(true);
    });
    item.append(name, remove);
    return item;
  }

  draw() {
    const t = this.view.transform();
    if (!t) return;
    const d = (rings, close) =>
      rings.map((r) => `M${r.map(([x, y]) => `${x * t.kx + t.x} ${y * t.ky + t.y}`).join("L")}${close ? "Z" : ""}`).join("");
    const shapes = this.polygons.map(({ name, rings }) => this.shape(d(rings, true), name.toLowerCase()));
    if (this.draft?.length) {
      shapes.push(this.shape(d([this.draft], false), "draft"));
      for (const [x, y] of this.draft) {
        const dot = document.createElementNS(SVG, "circle");
        dot.setAttribute("cx", x * t.kx + t.x);
        dot.setAttribute("cy", y * t.ky + t.y);
        dot.setAttribute("r", 4);
        shapes.push(dot);
      }
    }
    this.svg.replaceChildren(...shapes);
  }

  shape(d, name) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    path.setAttribute("class", name);
    path.setAttribute("fill-rule", "evenodd");
    return path;
  }
}
