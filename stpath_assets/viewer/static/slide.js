// A slide's page: puts the views, the gene list, the tile and the regions together.

import { ask, slidePath } from "/static/api.js";
import { drawBar, loadMap } from "/static/colours.js";
import { GenePicker } from "/static/picker.js";
import { Regions } from "/static/regions.js";
import { ScanView, tie, usualSide } from "/static/scan.js";
import { TileCard } from "/static/tile.js";

const at = (id) => document.getElementById(id);
const slideId = decodeURIComponent(location.pathname.split("/")[2]);
const path = slidePath(slideId);
const wanted = new URLSearchParams(location.search);
const FAVOURITE = ["EPCAM", "ERBB2", "CD74", "VIM"];

const state = { model: null, gene: null, expression: null, measured: null, asking: null, shown: true };
let view;
let beside = null;
let slide;
let tile;

function tell(text, isError = false) {
  at("status").textContent = text;
  at("status").classList.toggle("error", isError);
}

// What is shown, in the address, so that a link opens the same.
function keepAddress() {
  const now = new URLSearchParams();
  if (state.model) now.set("model", state.model);
  if (state.gene) now.set("gene", state.gene);
  if (tile.id) now.set("tile", tile.id);
  if (at("show-measured").checked) now.set("measured", "1");
  history.replaceState(null, "", now.size ? `?${now}` : location.pathname);
}

const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(2));

function limitsNow() {
  const kind = at("limits").value;
  if (kind === "own") return [Number(at("low").value), Number(at("high").value)];
  const [low, high] = state.expression.limits[kind === "each" ? "slide" : kind];
  const measured = at("show-measured").checked && kind !== "each" ? state.measured : null;
  return measured ? [Math.min(low, measured.limits[0]), Math.max(high, measured.limits[1])] : [low, high];
}

async function paint() {
  if (!state.expression) return;
  const colours = await loadMap(at("colours").value);
  const limits = limitsNow();
  if (at("limits").value !== "own") {
    at("low").value = limits[0].toFixed(2);
    at("high").value = limits[1].toFixed(2);
  }
  const isRange = limits[0] < limits[1];
  for (const id of ["low", "high"]) at(id).setAttribute("aria-invalid", String(!isRange));
  if (!isRange) {
    tell("The upper limit must be above the lower one.", true);
    return;
  }
  drawBar(at("bar"), colours);
  const look = { colours, limits, opacity: state.shown ? Number(at("opacity").value) / 100 : 0 };
  view.setLook(look);
  const apart = at("limits").value === "each" && state.measured ? state.measured.limits : null;
  beside?.setLook({ ...look, limits: apart ?? limits, opacity: state.shown ? 1 : 0 });
  const scale = apart ? `${number(apart[0])} to ${number(apart[1])}` : "same colours";
  at("measured-said").textContent = state.measured
    ? `${state.expression.gene}, measured (${state.measured.unit}), ${scale}`
    : `${state.expression.gene} was not measured here`;
}

function describe() {
  const { expression, measured } = state;
  const score = measured?.score;
  at("predicted-said").textContent = `${expression.gene}, predicted by ${expression.model} (${expression.unit})`;
  at("gene-said").textContent = [
    `Mean ${number(expression.mean)}`,
    expression.z === null ? null : `z ${number(expression.z)} among ${expression.peers} slides of the cohort and organ`,
    score && score.pearson_r !== null
      ? `Pearson r ${number(score.pearson_r)} (${number(score.pearson_low)} to ${number(score.pearson_high)}) over ${score.n_spots} spots`
      : null,
  ].filter(Boolean).join(" · ");
  at("predicted").querySelector(".openseadragon-canvas")
    ?.setAttribute("aria-label", `Slide ${slideId}, ${at("predicted-said").textContent}; arrows move, plus and minus zoom`);
}

async function showGene(gene) {
  state.asking?.abort();
  const asking = new AbortController();
  state.asking = asking;
  const question = { gene, model: state.model };
  try {
    const [expression, measured] = await Promise.all([
      ask(`${path}/expression`, question, asking.signal),
      slide.measured ? ask(`${path}/measured`, question, asking.signal) : null,
    ]);
    Object.assign(state, { gene, expression, measured });
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message, true);
    return;
  }
  const { expression, measured } = state;
  view.setMarks({ ...expression, id: expression.tile_id, usualSide: usualSide(expression.x) });
  beside?.setMarks(measured ? { ...measured, id: measured.spot_id } : null);
  describe();
  await paint();
  tell(`${gene}: ${expression.tile_id.length} tiles`);
  keepAddress();
  performance.mark("gene shown");
}

async function showModel(model, picker) {
  state.model = model;
  const about = slide.models.find((m) => m.model === model);
  at("note").hidden = !about.note;
  at("note").textContent = about.note ?? "";
  const { genes } = await ask(`${path}/genes`, { model });
  picker.setGenes(genes);
  const known = new Set(genes.map((g) => g.gene));
  const gene = [state.gene, wanted.get("gene"), ...FAVOURITE, genes[0]?.gene].find((g) => known.has(g));
  if (gene) {
    picker.set(gene);
    await showGene(gene);
  }
}

function showMeasured(on) {
  at("beside").hidden = !on;
  if (on && !beside) {
    beside = new ScanView(at("measured"), slide, path, false);
    tie(view, beside);
    if (state.measured) beside.setMarks({ ...state.measured, id: state.measured.spot_id });
    hover(beside);
  }
  paint();
  keepAddress();
}

const REST_MS = 300;

// The value under the pointer, and where it rests on a tile, the genes that are highest there.
function hover(shown) {
  const OSD = window.OpenSeadragon;
  let rest = null;
  let asking = false;
  let over = -1;
  const highest = async (index, said) => {
    if (asking || !state.model) return; // one question at a time: a large panel takes a while
    asking = true;
    try {
      const { genes } = await ask(`${path}/tiles/${encodeURIComponent(shown.marks.id[index])}`, { model: state.model });
      const top = genes.slice(0, 3).filter((g) => g.z !== null).map((g) => `${g.gene} ${g.z.toFixed(1)}`);
      if (over === index && top.length) at("status").textContent = `${said} · highest z: ${top.join(", ")}`;
    } catch {
      // a click says what is wrong
    } finally {
      asking = false;
    }
  };
  const tracker = new OSD.MouseTracker({
    element: shown.viewer.canvas,
    preProcessEventHandler: (info) => {
      if (info.eventType !== "pointermove") info.preventGesture = false;
    },
    moveHandler: (event) => {
      const index = shown.markAt(event.position);
      if (index === over) return;
      over = index;
      clearTimeout(rest);
      if (index < 0) return;
      const { marks } = shown;
      const said = `${marks.id[index]}: ${number(marks.value[index])} ${marks.unit ?? ""}`;
      at("status").classList.remove("error");
      at("status").textContent = said;
      if (!marks.radius) rest = setTimeout(() => highest(index, said), REST_MS);
    },
  });
  tracker.setTracking(true);
  shown.viewer.addHandler("tile-load-failed", () => tell("A part of the scan cannot be read: its file may be damaged or gone.", true));
}

function ruler() {
  const t = view.transform();
  if (!t) return;
  const pxOfUm = t.kx / slide.mpp;
  const target = 120 / pxOfUm;
  const power = 10 ** Math.floor(Math.log10(target));
  const um = [5, 2, 1].map((n) => n * power).find((n) => n <= target);
  at("ruler").style.width = `${um * pxOfUm}px`;
  at("ruler").firstElementChild.textContent = um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
}

function onKeys(picker, regions) {
  const actions = {
    g: () => at("gene").focus(),
    "[": () => picker.step(-1),
    "]": () => picker.step(1),
    o: () => {
      state.shown = !state.shown;
      paint();
    },
    m: () => {
      if (slide.measured) at("show-measured").click();
    },
    t: () => {
      const canvas = view.viewer.canvas;
      chooseAt({ x: canvas.clientWidth / 2, y: canvas.clientHeight / 2 });
    },
    d: () => at("region-draw").click(),
    "+": () => view.zoom(1.5),
    "=": () => view.zoom(1.5),
    "-": () => view.zoom(1 / 1.5),
    0: () => view.home(),
    "?": () => at("help").showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "checkbox") return;
    if (regions.onKey(event.key)) {
      event.preventDefault();
    } else if (actions[event.key] && !event.target.closest?.(".openseadragon-canvas")) {
      event.preventDefault();
      actions[event.key]();
    } else if (actions[event.key] && !"+=-0".includes(event.key)) {
      actions[event.key](); // zooming with the focus on the slide is OpenSeadragon's
    }
  });
}

function chooseAt(position) {
  const index = view.markAt(position);
  if (index >= 0) chooseTile(index);
}

async function chooseTile(index) {
  view.choose(index);
  const shown = tile.show(view.marks.id[index], state.model);
  keepAddress();
  await shown;
}

async function start() {
  document.title = `${slideId} · stpath-assets`;
  at("title").textContent = slideId;
  slide = await ask(path);
  const facts = [slide.organ, slide.tech, slide.cohort, `${(slide.width * slide.mpp / 1000).toFixed(1)} × ${(slide.height * slide.mpp / 1000).toFixed(1)} mm`, `${slide.mpp.toFixed(3)} µm/px`];
  at("facts").textContent = facts.filter(Boolean).join(" · ");
  view = new ScanView(at("predicted"), slide, path, true);
  view.viewer.addHandler("update-viewport", ruler);
  view.viewer.addHandler("open", ruler);
  view.viewer.addOnceHandler("tile-drawn", () => performance.mark("first picture"));
  hover(view);
  const picker = new GenePicker(at("gene"), at("genes"), showGene);
  tile = new TileCard(at, path, (gene) => picker.take(gene), tell);
  const parts = { draw: at("region-draw"), save: at("region-save"), list: at("region-list"), name: at("region-class") };
  const regions = new Regions(view, path, parts, tell);
  view.viewer.addHandler("canvas-click", (event) => {
    if (event.quick && !regions.isDrawing) chooseAt(event.position);
  });
  at("zoom-in").addEventListener("click", () => view.zoom(1.5));
  at("zoom-out").addEventListener("click", () => view.zoom(1 / 1.5));
  at("zoom-home").addEventListener("click", () => view.home());
  at("gene-before").addEventListener("click", () => picker.step(-1));
  at("gene-next").addEventListener("click", () => picker.step(1));
  at("help-open").addEventListener("click", () => at("help").showModal());
  for (const id of ["limits", "colours"]) at(id).addEventListener("change", paint);
  at("opacity").addEventListener("input", paint);
  for (const id of ["low", "high"]) {
    at(id).addEventListener("input", () => {
      at("limits").value = "own";
      paint();
    });
  }
  at("measured-field").hidden = !slide.measured;
  at("show-measured").addEventListener("change", (event) => showMeasured(event.target.checked));
  onKeys(picker, regions);
  regions.load().catch((error) => tell(error.message, true));

  if (slide.warnings.length) tell(slide.warnings[0], true);
  if (!slide.models.length) {
    at("model").disabled = true;
    at("gene").disabled = true;
    at("predicted-said").textContent = "Scan";
    tell(`Nothing is predicted yet: stpath-assets run ${slideId}`);
    return;
  }
  for (const { model, genes } of slide.models) at("model").add(new Option(`${model} (${genes} genes)`, model));
  const model = slide.models.find((m) => m.model === wanted.get("model"))?.model ?? slide.models[0].model;
  at("model").value = model;
  at("model").addEventListener("change", () => showModel(at("model").value, picker).catch((error) => tell(error.message, true)));
  await showModel(model, picker);
  if (wanted.get("measured") && slide.measured) at("show-measured").click();
  const index = view.marks?.id.indexOf(wanted.get("tile")) ?? -1;
  if (index >= 0) {
    const go = () => view.show(index);
    if (view.image) go();
    else view.viewer.addOnceHandler("open", go);
    await chooseTile(index);
  }
}

start().catch((error) => tell(error.message, true));
