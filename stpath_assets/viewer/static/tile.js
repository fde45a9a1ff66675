// The card of one tile: its picture, its genes, and the tiles that look alike.

import { ask, slidePath } from "/static/api.js";

const signed = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`);

export class TileCard {
  // `at` finds elements by id, `choose` shows a gene, `tell` says a line.
  constructor(at, path, choose, tell) {
    Object.assign(this, { at, path, choose, tell });
    this.id = null;
  }

  async show(id, model) {
    this.id = id;
    const { at } = this;
    const path = `${this.path}/tiles/${encodeURIComponent(id)}`;
    at("tile-hint").hidden = true;
    at("tile").hidden = false;
    at("tile-picture").hidden = false;
    at("tile-picture").onerror = () => {
      at("tile-picture").hidden = true; // a tile of another tool has no place in the grid
    };
    at("tile-picture").src = `${path}.jpg`;
    at("tile-genes").replaceChildren(this.asking()); // of 39,000 genes, this takes two seconds
    this.say(at("similar"), "searching …");
    const similar = this.similar(path, id);
    try {
      const tile = await ask(path, { model });
      if (this.id !== id) return;
      this.facts(tile);
      at("tile-genes").replaceChildren(...tile.genes.map((gene) => this.row(gene)));
    } catch (error) {
      this.tell(error.message, true);
    }
    await similar;
  }

  facts(tile) {
    const facts = { tile: tile.tile_id, x: `${Math.round(tile.center_x_px)} px`, y: `${Math.round(tile.center_y_px)} px` };
    if (tile.tissue_fraction !== null) facts.tissue = `${Math.round(100 * tile.tissue_fraction)} %`;
    const parts = Object.entries(facts).flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const said = document.createElement("dd");
      term.textContent = name;
      said.textContent = value;
      return [term, said];
    });
    this.at("tile-facts").replaceChildren(...parts);
  }

  row({ gene, expression_log1p: value, z }) {
    const row = document.createElement("tr");
    const name = document.createElement("td");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = gene;
    button.title = `Show ${gene}`;
    button.addEventListener("click", () => this.choose(gene));
    name.append(button);
    const cells = [value === null ? "–" : value.toFixed(2), signed(z)].map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    });
    row.append(name, ...cells);
    return row;
  }

  asking() {
    const row = document.createElement("tr");
    const cell = document.createElement("td");
    cell.colSpan = 3;
    cell.className = "more";
    cell.textContent = "asking …";
    row.append(cell);
    return row;
  }

  async similar(path, id) {
    const list = this.at("similar");
    try {
      const { tiles } = await ask(`${path}/similar`);
      if (this.id !== id) return;
      list.replaceChildren(...tiles.map((tile) => this.alike(tile)));
      if (!tiles.length) this.say(list, "there are no others");
    } catch (error) {
      if (this.id === id) this.say(list, error.message);
    }
  }

  alike({ slide_id: slide, tile_id: tile, similarity }) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `/slides/${encodeURIComponent(slide)}?tile=${encodeURIComponent(tile)}`;
    const picture = document.createElement("img");
    picture.src = `${slidePath(slide)}/tiles/${encodeURIComponent(tile)}.jpg`;
    picture.alt = `Tile ${tile} of ${slide}, cosine ${similarity.toFixed(3)}`;
    picture.width = 64;
    picture.height = 64;
    const name = document.createElement("small");
    name.textContent = slide;
    link.title = picture.alt;
    link.append(picture, name);
    item.append(link);
    return item;
  }

  say(list, text) {
    const item = document.createElement("li");
    item.className = "more";
    item.textContent = text;
    list.replaceChildren(item);
  }
}
