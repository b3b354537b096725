// A grid of cards that holds only the rows in sight: virtual-core says which, this draws them and moves the focus.
// Rows that leave the sight are filled anew for those that come, so that neither scrolling nor typing makes elements.
"use strict";
const Grid = (() => {
  const { h } = Dom;
  const gap = 20;

  class CardGrid {
    // card() makes {element, show(index)}, a link that can be filled again; height(width) is the height of a card of that width.
    constructor({ label, least, height, card }) {
      Object.assign(this, { least, height, card, count: 0, rows: new Map(), spare: [] });
      this.host = h("div.cards", { role: "list", "aria-label": label, on: { keydown: (event) => this.move(event) } });
    }

    attach() {
      this.measure();
      this.virtual = new VirtualCore.Virtualizer(this.options());
      this.unmount = this.virtual._didMount();
      this.virtual._willUpdate();
      this.resized = new ResizeObserver(() => this.resize());
      this.resized.observe(this.host);
    }

    detach() {
      this.resized.disconnect();
      this.unmount();
    }

    measure() {
      const width = this.host.clientWidth || 320;
      this.width = width;
      this.columns = Math.max(1, Math.floor((width + gap) / (this.least + gap)));
      this.rowHeight = Math.ceil(this.height((width - gap * (this.columns - 1)) / this.columns)) + gap;
    }

    options() {
      return {
        count: Math.ceil(this.count / this.columns),
        getScrollElement: () => window,
        estimateSize: () => this.rowHeight,
        scrollMargin: this.host.getBoundingClientRect().top + window.scrollY,
        overscan: 1,
        initialRect: { width: window.innerWidth, height: window.innerHeight },
        initialOffset: window.scrollY,
        observeElementRect: VirtualCore.observeWindowRect,
        observeElementOffset: VirtualCore.observeWindowOffset,
        scrollToFn: VirtualCore.windowScroll,
        onChange: () => this.draw(),
      };
    }

    resize() {
      if (Math.abs(this.host.clientWidth - this.width) < 1) return;
      this.show(this.count);
    }

    // Draws `count` cards anew.
    show(count) {
      const { columns } = this;
      this.count = count;
      this.measure();
      if (this.columns !== columns) this.spare = [];
      else this.spare.push(...[...this.rows].sort(([one], [two]) => two - one).map(([, row]) => row));
      this.rows.clear();
      if (this.columns !== columns) this.host.replaceChildren();
      this.virtual.setOptions(this.options());
      this.virtual.measure();
      this.virtual._willUpdate();
      this.draw();
    }

    draw() {
      this.host.style.height = `${Math.max(0, this.virtual.getTotalSize() - gap)}px`;
      const items = this.virtual.getVirtualItems();
      const wanted = new Set(items.map((item) => item.index));
      for (const [index, row] of this.rows) {
        if (wanted.has(index) || row.element.contains(document.activeElement)) continue;
        this.spare.push(row);
        this.rows.delete(index);
      }
      for (const item of items) if (!this.rows.has(item.index)) this.add(item);
      for (const row of this.spare) row.element.remove();
    }

    make() {
      const cells = Array.from({ length: this.columns }, () => {
        const card = this.card();
        return { card, element: h("div.cell", { role: "listitem" }, card.element) };
      });
      const element = h("div.row", {
        role: "presentation",
        style: { "--columns": this.columns },
      });
      return { element, cells };
    }

    add(item) {
      const row = this.spare.pop() ?? this.make();
      const start = item.index * this.columns;
      const filled = row.cells.slice(0, this.count - start);
      filled.forEach(({ card, element }, column) => {
        card.show(start + column);
        card.element.dataset.index = start + column;
        element.setAttribute("aria-setsize", this.count);
        element.setAttribute("aria-posinset", start + column + 1);
      });
      if (row.element.childElementCount !== filled.length)
        row.element.replaceChildren(...filled.map(({ element }) => element));
      row.element.style.transform = `translateY(${item.start - this.virtual.options.scrollMargin}px)`;
      row.element.style.height = `${this.rowHeight - gap}px`;
      this.rows.set(item.index, row);
      // Rows stay in the order of their numbers, so that Tab follows the eye.
      const next = [...this.rows.keys()].filter((index) => index > item.index).sort((a, b) => a - b)[0];
      const after = next === undefined ? null : this.rows.get(next).element;
      if (!row.element.isConnected || row.element.nextSibling !== after) this.host.insertBefore(row.element, after);
    }

    move(event) {
      const index = Number(event.target.closest("[data-index]")?.dataset.index);
      const steps = {
        ArrowRight: 1,
        ArrowLeft: -1,
        ArrowDown: this.columns,
        ArrowUp: -this.columns,
        Home: -index,
        End: this.count - 1 - index,
      };
      if (!(event.key in steps) || Number.isNaN(index) || event.ctrlKey || event.metaKey || event.altKey) return;
      const target = index + steps[event.key];
      if (target < 0 || target >= this.count) return;
      event.preventDefault();
      this.focus(target);
    }

    focus(index) {
      const row = Math.floor(index / this.columns);
      if (!this.rows.has(row)) {
        this.virtual.scrollToIndex(row, { align: "center" });
        this.add({ index: row, start: this.virtual.options.scrollMargin + row * this.rowHeight });
      }
      const card = this.rows.get(row).element.querySelector(`[data-index="${index}"]`);
      card.focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    }
  }

  return { CardGrid };
})();
