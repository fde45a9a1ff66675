// All slides of the data root, as cards.

import { ask, slidePath } from "/static/api.js";

const list = document.getElementById("slides");
const search = document.getElementById("search");
const status = document.getElementById("status");

function card(slide) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = `/slides/${encodeURIComponent(slide.slide_id)}`;
  const picture = document.createElement("img");
  picture.loading = "lazy";
  picture.alt = "";
  picture.src = `${slidePath(slide.slide_id)}/thumbnail.jpg`;
  picture.addEventListener("error", () => picture.replaceWith(Object.assign(document.createElement("div"), { className: "absent", textContent: "the scan cannot be read" })));
  const name = document.createElement("strong");
  name.textContent = slide.slide_id;
  const facts = document.createElement("span");
  facts.textContent = [slide.organ ?? "no organ", slide.tech ?? "no technology", slide.cohort].filter(Boolean).join(" · ");
  const state = document.createElement("span");
  state.className = "state";
  state.textContent = slide.failed
    ? `failed: ${slide.failed}`
    : [slide.tiles === null ? "no tiles yet" : `${slide.tiles} tiles`, slide.predicted ? "predicted" : "not predicted", slide.measured ? "measured" : null].filter(Boolean).join(" · ");
  if (slide.failed) state.classList.add("failed");
  link.append(picture, name, facts, state);
  item.append(link);
  return item;
}

function show(slides) {
  const wanted = search.value.trim().toLowerCase();
  const found = slides.filter((s) => [s.slide_id, s.organ, s.tech, s.cohort].some((text) => (text ?? "").toLowerCase().includes(wanted)));
  list.replaceChildren(...found.map(card));
  document.getElementById("count").textContent = found.length === slides.length ? slides.length : `${found.length} of ${slides.length}`;
  status.textContent = slides.length ? "" : "No slide is registered here. Add one: stpath-assets add SLIDE";
}

try {
  const { slides } = await ask("/api/slides");
  show(slides);
  search.addEventListener("input", () => show(slides));
} catch (error) {
  status.textContent = error.message;
}
