/* What a page does: which pictures are shown in which way, and what keys, mouse and fingers change. */
"use strict";

const ZOOMS = [1, 2, 4, 8]; // pixels of the screen by pixels of the largest picture
const BLINK = 700; // milliseconds
const LENS = 220; // CSS pixels a side
const LENS_SHARE = 0.6; // of a pane's side, at most
const GRIP = { mouse: 10, pen: 16, touch: 24 }; // CSS pixels around the divider
const PAN = 60; // CSS pixels a key moves the pictures by
const WHEEL = 60; // of a wheel or pad, for the next zoom

class Viewer {
  constructor(page) {
    const canvas = document.getElementById("canvas");
    const colorSpace = matchMedia("(color-gamut: p3)").matches ? "display-p3" : "srgb";
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { colorSpace });
    this.frame = { width: page.width, height: page.height };
    const missing = document.getElementById("missing");
    const failed = () => (missing.hidden = false);
    this.tiles = new Tiles(() => this.redraw(), failed, page.tiles);
    this.pictures = page.pictures.map((about, i) => new Picture(about, i, page, this.tiles));
    this.mode = "slider";
    this.pair = [0, this.pictures.length > 1 ? 1 : 0];
    this.view = { x: page.width / 2, y: page.height / 2, zoom: 1 };
    this.fitted = true;
    this.divider = 0.5;
    this.gain = 8;
    this.lens = false;
    this.pointer = null; // on the canvas
    this.second = false; // whether the second of a blinking pair is shown
    this.waiting = 0;
    this.arranged = () => {}; // called when something changed that controls show
    this.paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
    setInterval(() => this.mode === "blink" && !this.paused && this.flip(), BLINK);
    new ResizeObserver(() => this._resize()).observe(canvas);
  }

  // What can be asked of it.

  set(changes) {
    Object.assign(this, changes);
    this._fit();
    this.arranged();
    this.redraw();
  }

  flip() {
    this.second = !this.second;
    this.redraw();
  }

  swap() {
    this.set({ pair: [this.pair[1], this.pair[0]] });
  }

  fit() {
    this.set({ fitted: true });
  }

  /** Zoom; the place of the canvas that is named, or the middle of it, stays where it is. */
  zoomTo(zoom, at = null) {
    const pane = at === null ? this.panes()[0] : this._paneAt(at);
    const place = at ?? { x: pane.left + pane.width / 2, y: pane.top + pane.height / 2 };
    const kept = new Placing(pane, this.view).toFrame(place.x, place.y);
    const middle = { x: pane.left + pane.width / 2, y: pane.top + pane.height / 2 };
    this.view.x = kept.x - (place.x - middle.x) / zoom;
    this.view.y = kept.y - (place.y - middle.y) / zoom;
    this.view.zoom = zoom;
    this.fitted = false;
    this._hold();
    this.arranged();
    this.redraw();
  }

  /** The next larger or smaller zoom: half by half below 1:1. */
  step(direction, at = null) {
    const zooms = this._zooms();
    const now = this.view.zoom;
    const next =
      direction > 0 ? zooms.find((z) => z > now * 1.001) : zooms.findLast((z) => z < now / 1.001);
    if (next === undefined) return;
    if (next === zooms[0] && next === this.fitting()) this.fit();
    else this.zoomTo(next, at);
  }

  nearestStep(at) {
    const by = (zoom) => Math.abs(Math.log(zoom / this.view.zoom));
    const nearest = this._zooms().reduce((best, zoom) => (by(zoom) < by(best) ? zoom : best));
    if (nearest === this.fitting()) this.fit();
    else this.zoomTo(nearest, at);
  }

  /** Move the pictures by pixels of the canvas. */
  move(x, y) {
    this.view.x -= x / this.view.zoom;
    this.view.y -= y / this.view.zoom;
    this.fitted = false;
    this._hold();
    this.arranged();
    this.redraw();
  }

  /** The whole picture is in view: there is nothing to move it for. */
  get whole() {
    return this.view.zoom <= this.fitting();
  }

  panes() {
    const { width, height } = this.canvas;
    if (this.mode !== "side") return [{ left: 0, top: 0, width, height }];
    const count = this.pictures.length;
    const scale = (columns) =>
      Math.min(
        width / columns / this.frame.width,
        height / Math.ceil(count / columns) / this.frame.height,
      );
    let columns = 1;
    for (let more = 2; more <= count; more++) if (scale(more) > scale(columns)) columns = more;
    const rows = Math.ceil(count / columns);
    const [across, down] = [Math.floor(width / columns), Math.floor(height / rows)];
    const gap = Math.round(devicePixelRatio);
    return this.pictures.map((_, i) => ({
      left: (i % columns) * across,
      top: Math.floor(i / columns) * down,
      width: across - gap,
      height: down - gap,
    }));
  }

  // How it looks.

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this._draw();
    });
  }

  _draw() {
    const { context, canvas } = this;
    context.clearRect(0, 0, canvas.width, canvas.height);
    const panes = this.panes();
    this[`_draw_${this.mode}`](panes);
    if (this.lens) this._drawLenses(panes);
    this.tiles.tidy();
  }

  get _both() {
    return this.pair.map((number) => this.pictures[number]);
  }

  _draw_slider([pane]) {
    const [first, second] = this._both;
    const edge = Math.round(pane.width * this.divider);
    const placing = new Placing(pane, this.view);
    this._within({ ...pane, width: edge }, () => first.draw(this.context, placing));
    const rest = { ...pane, left: edge, width: pane.width - edge };
    this._within(rest, () => second.draw(this.context, placing));
    this._drawDivider(edge, pane);
    this._label(first.title, pane);
    this._label(second.title, pane, true);
  }

  _draw_side(panes) {
    panes.forEach((pane, number) => {
      this.pictures[number].draw(this.context, new Placing(pane, this.view));
      this._label(this.pictures[number].title, pane);
    });
  }

  _draw_blink([pane]) {
    const shown = this._both[Number(this.second)];
    shown.draw(this.context, new Placing(pane, this.view));
    this._label(shown.title, pane);
  }

  _draw_difference([pane]) {
    this._drawDifference(new Placing(pane, this.view));
    const [first, second] = this._both;
    this._label(`${first.title} \u2212 ${second.title}, \u00d7${this.gain}`, pane);
  }

  /** |first - second|, amplified by adding it to itself. */
  _drawDifference(placing) {
    const { context, canvas } = this;
    const [first, second] = this._both;
    const { pane } = placing;
    this._within(pane, () => {
      context.fillStyle = "#000";
      context.fillRect(pane.left, pane.top, pane.width, pane.height);
      first.draw(context, placing);
      context.globalCompositeOperation = "difference";
      second.draw(context, placing);
      context.globalCompositeOperation = "lighter";
      context.imageSmoothingEnabled = false;
      const area = [pane.left, pane.top, pane.width, pane.height];
      for (let gain = 1; gain < this.gain; gain *= 2) {
        context.drawImage(canvas, ...area, ...area);
      }
    });
  }

  _drawLenses(panes) {
    const pointer = this.pointer ?? this._middle();
    const at = new Placing(this._paneAt(pointer), this.view).toFrame(pointer.x, pointer.y);
    const view = { ...at, zoom: Math.max(2, 4 * this.view.zoom) };
    panes.forEach((pane, number) => {
      const most = LENS_SHARE * Math.min(pane.width, pane.height);
      const side = Math.round(Math.min(LENS * devicePixelRatio, most));
      const { x, y } = new Placing(pane, this.view).toCanvas(at);
      const left = Math.round(Math.max(pane.left, Math.min(x - side / 2, pane.left + pane.width - side)));
      const top = Math.round(Math.max(pane.top, Math.min(y - side / 2, pane.top + pane.height - side)));
      const glass = { left, top, width: side, height: side };
      this._within(glass, () => this._drawLens(glass, view, number));
      this.context.lineWidth = 2 * devicePixelRatio;
      this.context.strokeStyle = "#fff";
      this.context.strokeRect(left, top, side, side);
      this.context.lineWidth = devicePixelRatio;
      this.context.strokeStyle = "#000";
      this.context.strokeRect(left, top, side, side);
    });
  }

  /** One place, in both pictures of a pair: the halves have the same middle. */
  _drawLens(glass, view, number) {
    const { context } = this;
    context.clearRect(glass.left, glass.top, glass.width, glass.height);
    if (this.mode === "difference") {
      this._drawDifference(new Placing(glass, view));
    } else if (this.mode === "side") {
      this.pictures[number].draw(context, new Placing(glass, view));
    } else {
      const half = Math.floor(glass.width / 2);
      this._both.forEach((picture, i) => {
        const pane = { ...glass, left: glass.left + i * half, width: half };
        picture.draw(context, new Placing(pane, view));
      });
      context.fillStyle = "#fff";
      context.fillRect(glass.left + half, glass.top, 1, glass.height);
    }
  }

  _drawDivider(edge, pane) {
    const { context } = this;
    const unit = devicePixelRatio;
    context.fillStyle = "#000";
    const line = Math.round(unit); // whole pixels have sharp edges
    context.fillRect(edge - 2 * line, pane.top, 4 * line, pane.height);
    context.fillStyle = "#fff";
    context.fillRect(edge - line, pane.top, 2 * line, pane.height);
    const middle = pane.top + pane.height / 2;
    context.beginPath();
    context.arc(edge, middle, 15 * unit, 0, 7);
    context.fill();
    context.fillStyle = "#000";
    for (const way of [-1, 1]) {
      context.beginPath();
      context.moveTo(edge + way * 11 * unit, middle);
      context.lineTo(edge + way * 5 * unit, middle - 5 * unit);
      context.lineTo(edge + way * 5 * unit, middle + 5 * unit);
      context.fill();
    }
  }

  _label(text, pane, right = false) {
    const { context } = this;
    const unit = devicePixelRatio;
    const room = pane.width * (this.mode === "slider" ? 0.5 : 1) - 24 * unit;
    context.font = `${13 * unit}px system-ui, sans-serif`;
    let shown = text;
    for (let cut = text.length - 1; cut > 0 && context.measureText(shown).width > room; cut--) {
      shown = `${text.slice(0, Math.ceil(cut / 2))}\u2026${text.slice(text.length - Math.floor(cut / 2))}`;
    }
    const width = context.measureText(shown).width;
    const left = right ? pane.left + pane.width - width - 16 * unit : pane.left + 4 * unit;
    context.fillStyle = "#000b";
    context.fillRect(left, pane.top + 4 * unit, width + 12 * unit, 22 * unit);
    context.fillStyle = "#fff";
    context.textBaseline = "middle";
    context.fillText(shown, left + 6 * unit, pane.top + 15.5 * unit);
  }

  _within(pane, draw) {
    this.context.save();
    this.context.beginPath();
    this.context.rect(pane.left, pane.top, pane.width, pane.height);
    this.context.clip();
    draw();
    this.context.restore();
  }

  // Sizes and places.

  _resize() {
    const box = this.canvas.getBoundingClientRect();
    this.canvas.width = Math.max(1, Math.round(box.width * devicePixelRatio));
    this.canvas.height = Math.max(1, Math.round(box.height * devicePixelRatio));
    this._fit();
    this.arranged();
    this.redraw();
  }

  _fit() {
    if (!this.fitted) return;
    this.view = { x: this.frame.width / 2, y: this.frame.height / 2, zoom: this.fitting() };
  }

  /** The zoom that shows all of the frame; from 1:1 on a whole number. */
  fitting() {
    const [pane] = this.panes();
    const zoom = Math.min(pane.width / this.frame.width, pane.height / this.frame.height);
    return zoom < 1 ? zoom : Math.min(ZOOMS.at(-1), Math.floor(zoom));
  }

  _zooms() {
    const zooms = [this.fitting(), ...ZOOMS];
    for (let zoom = 0.5; zoom > zooms[0]; zoom /= 2) zooms.push(zoom);
    return zooms.sort((one, other) => one - other);
  }

  _hold() {
    this.view.x = Math.max(0, Math.min(this.frame.width, this.view.x));
    this.view.y = Math.max(0, Math.min(this.frame.height, this.view.y));
  }

  _middle() {
    const [pane] = this.panes();
    return { x: pane.left + pane.width / 2, y: pane.top + pane.height / 2 };
  }

  _paneAt({ x, y }) {
    const holds = (p) =>
      x >= p.left && x <= p.left + p.width && y >= p.top && y <= p.top + p.height;
    const panes = this.panes();
    return panes.find(holds) ?? panes[0];
  }
}
