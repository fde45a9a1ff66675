// The gene list: a combobox after the ARIA pattern, filtered as one types.

const MOST = 60;

export class GenePicker {
  constructor(input, list, choose) {
    this.input = input;
    this.list = list;
    this.choose = choose;
    this.genes = [];
    this.gene = null;
    this.active = -1;
    input.addEventListener("focus", () => {
      input.select();
      this.open("");
    });
    input.addEventListener("input", () => this.open(input.value));
    input.addEventListener("blur", () => this.close());
    input.addEventListener("keydown", (event) => this.onKey(event));
    // Before the input loses the focus and closes the list.
    list.addEventListener("mousedown", (event) => {
      event.preventDefault();
      const option = event.target.closest("[role=option]");
      if (option) this.take(option.dataset.gene);
    });
  }

  setGenes(genes) {
    this.genes = genes;
  }

  set(gene) {
    this.gene = gene;
    this.input.value = gene;
  }

  // The next gene of the list, or the one before.
  step(by) {
    const at = this.genes.findIndex((g) => g.gene === this.gene);
    const next = this.genes[(at + by + this.genes.length) % this.genes.length];
    if (next) this.take(next.gene);
  }

  take(gene) {
    this.set(gene);
    this.close();
    this.choose(gene);
  }

  matching(text) {
    const wanted = text.trim().toUpperCase();
    if (!wanted) return this.genes;
    const starts = this.genes.filter((g) => g.gene.toUpperCase().startsWith(wanted));
    const holds = this.genes.filter((g) => g.gene.toUpperCase().indexOf(wanted) > 0);
    return [...starts, ...holds];
  }

  open(text) {
    const found = this.matching(text);
    this.list.replaceChildren(...found.slice(0, MOST).map((g, i) => this.option(g, i)));
    if (found.length > MOST || !found.length) {
      const more = document.createElement("li");
      more.className = "more";
      more.textContent = found.length ? `${found.length - MOST} more: type to narrow` : "no such gene";
      this.list.append(more);
    }
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.activate(text && found.length ? 0 : -1);
  }

  option(gene, i) {
    const option = document.createElement("li");
    option.role = "option";
    option.id = `gene-${i}`;
    option.dataset.gene = gene.gene;
    option.setAttribute("aria-selected", String(gene.gene === this.gene));
    const name = document.createElement("span");
    name.textContent = gene.gene;
    const facts = document.createElement("small");
    facts.textContent = gene.pearson_r === null ? "" : `r ${gene.pearson_r.toFixed(2)}`;
    option.append(name, facts);
    return option;
  }

  activate(index) {
    const options = this.list.querySelectorAll("[role=option]");
    options.forEach((option, i) => option.classList.toggle("active", i === index));
    this.active = index;
    if (index >= 0) {
      this.input.setAttribute("aria-activedescendant", options[index].id);
      options[index].scrollIntoView({ block: "nearest" });
    } else {
      this.input.removeAttribute("aria-activedescendant");
    }
  }

  onKey(event) {
    const options = this.list.querySelectorAll("[role=option]");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (this.list.hidden) this.open("");
      const by = event.key === "ArrowDown" ? 1 : -1;
      if (options.length) this.activate((this.active + by + options.length) % options.length);
    } else if (event.key === "Enter" && !this.list.hidden) {
      const option = options[Math.max(this.active, 0)];
      if (option) this.take(option.dataset.gene);
    } else if (event.key === "Escape") {
      this.set(this.gene);
      this.close();
      this.input.blur();
    } else {
      return;
    }
    event.preventDefault();
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    if (this.gene !== null) this.input.value = this.gene;
  }
}
