/* Keys, mouse, fingers and the controls above the pictures, and what they ask of the viewer. */
"use strict";

const byId = (id) => document.getElementById(id);

/** Show in the controls what the viewer does, and have it do what they say. */
function connect(viewer) {
  const modes = document.querySelectorAll("input[name=mode]");
  const zooms = document.querySelectorAll("input[name=zoom]");
  const pair = [byId("first"), byId("second")];
  const divider = byId("divider");
  for (const choice of pair) {
    viewer.pictures.forEach((picture, i) => choice.add(new Option(picture.title, i)));
  }
  modes.forEach((mode) => mode.addEventListener("change", () => viewer.set({ mode: mode.value })));
  zooms.forEach((zoom) =>
    zoom.addEventListener("change", () =>
      zoom.value === "fit" ? viewer.fit() : viewer.zoomTo(Number(zoom.value)),
    ),
  );
  pair.forEach((choice) =>
    choice.addEventListener("change", () =>
      viewer.set({ pair: pair.map((each) => Number(each.value)) }),
    ),
  );
  byId("swap").addEventListener("click", () => viewer.swap());
  byId("lens").addEventListener("change", (event) => viewer.set({ lens: event.target.checked }));
  byId("gain").addEventListener("change", (event) =>
    viewer.set({ gain: Number(event.target.value) }),
  );
  divider.addEventListener("input", () => viewer.set({ divider: divider.value / 1000 }));

  viewer.arranged = () => {
    modes.forEach((mode) => (mode.checked = mode.value === viewer.mode));
    zooms.forEach((zoom) => {
      const value = zoom.value === "fit" ? null : Number(zoom.value);
      zoom.checked = value === null ? viewer.fitted : !viewer.fitted && value === viewer.view.zoom;
    });
    pair.forEach((choice, i) => (choice.value = viewer.pair[i]));
    byId("lens").checked = viewer.lens;
    byId("gain").value = viewer.gain;
    divider.value = Math.round(viewer.divider * 1000);
    document.body.dataset.mode = viewer.mode;
    const { x, y, zoom } = viewer.view;
    const ratio = zoom < 1 ? `1:${Number((1 / zoom).toFixed(1))}` : `${Number(zoom.toFixed(1))}:1`;
    byId("place").value = `${ratio}, around ${Math.round(x)}, ${Math.round(y)}`;
  };
}

/** What keys do, wherever the focus is but in a list or a field that heeds them itself. */
function heedKeys(viewer) {
  const stage = byId("stage");
  const unit = () => PAN * devicePixelRatio;
  const anywhere = {
    s: () => viewer.set({ mode: "slider" }),
    p: () => viewer.set({ mode: "side" }),
    b: () => viewer.set({ mode: "blink" }),
    d: () => viewer.set({ mode: "difference" }),
    l: () => viewer.set({ lens: !viewer.lens }),
    x: () => viewer.swap(),
    0: () => viewer.fit(),
    "+": () => viewer.step(1),
    "=": () => viewer.step(1),
    "-": () => viewer.step(-1),
    ...Object.fromEntries(ZOOMS.map((zoom) => [String(zoom), () => viewer.zoomTo(zoom)])),
  };
  const shift = (by) =>
    viewer.set({ mode: "slider", divider: Math.max(0, Math.min(1, viewer.divider + by)) });
  const onStage = {
    ArrowLeft: (event) => (event.shiftKey ? shift(-0.02) : viewer.move(unit(), 0)),
    ArrowRight: (event) => (event.shiftKey ? shift(0.02) : viewer.move(-unit(), 0)),
    ArrowUp: () => viewer.move(0, unit()),
    ArrowDown: () => viewer.move(0, -unit()),
    " ": () => {
      viewer.paused = true;
      viewer.flip();
    },
    Enter: () => viewer.set({ paused: !viewer.paused }),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches("select")) return;
    const focused = event.target === stage ? onStage[event.key] : undefined;
    const act = focused ?? anywhere[event.key.toLowerCase()];
    if (act === undefined) return;
    event.preventDefault();
    act(event);
  });
}

/** Dragging moves the pictures, the divider or the lens; two fingers zoom. */
class Dragging {
  constructor(viewer) {
    this.viewer = viewer;
    this.canvas = viewer.canvas;
    this.down = new Map(); // pointers by id, where they are on the canvas
    this.what = null;
    this.between = null; // the middle of two fingers
    this.turned = 0;
    const heed = (name, act) => this.canvas.addEventListener(name, act, { passive: false });
    heed("pointerdown", (event) => this._begin(event));
    heed("pointermove", (event) => this._go(event));
    heed("pointerup", (event) => this._end(event));
    heed("pointercancel", (event) => this._end(event));
    heed("pointerleave", (event) => event.pointerType === "mouse" && this._point(null));
    heed("wheel", (event) => this._turn(event));
    heed("dblclick", (event) => this._toggle(event));
  }

  _place(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: (event.clientX - box.left) * devicePixelRatio,
      y: (event.clientY - box.top) * devicePixelRatio,
    };
  }

  _point(place) {
    this.viewer.pointer = place;
    if (this.viewer.lens) this.viewer.redraw();
  }

  _onDivider(event, place) {
    const { viewer } = this;
    if (viewer.mode !== "slider") return false;
    const apart = Math.abs(place.x - viewer.divider * this.canvas.width);
    return viewer.whole || apart <= GRIP[event.pointerType] * devicePixelRatio;
  }

  _begin(event) {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    const place = this._place(event);
    this.canvas.setPointerCapture(event.pointerId);
    byId("stage").focus({ preventScroll: true });
    this.down.set(event.pointerId, place);
    if (this.down.size > 1) this.what = "pinch";
    else if (this.viewer.lens && event.pointerType !== "mouse") this.what = "lens";
    else this.what = this._onDivider(event, place) ? "divider" : "pictures";
    if (this.what === "divider") this._divide(place);
    this._point(place);
    event.preventDefault();
  }

  _go(event) {
    const place = this._place(event);
    const before = this.down.get(event.pointerId);
    if (before === undefined) {
      this.canvas.style.cursor = this._onDivider(event, place) ? "ew-resize" : "grab";
      this._point(place);
      return;
    }
    if (this.what === "pinch") this._pinch(event.pointerId, place);
    this.down.set(event.pointerId, place);
    if (this.what === "divider") this._divide(place);
    if (this.what === "pictures") this.viewer.move(place.x - before.x, place.y - before.y);
    this._point(place);
  }

  _end(event) {
    if (!this.down.delete(event.pointerId)) return;
    if (this.what === "pinch") this.viewer.nearestStep(this.between);
    this.what = null;
  }

  _divide(place) {
    this.viewer.set({ divider: Math.max(0, Math.min(1, place.x / this.canvas.width)) });
  }

  _pinch(id, place) {
    const other = [...this.down].find(([known]) => known !== id)?.[1];
    if (other === undefined) return;
    const before = this.down.get(id);
    const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    this.between = { x: (place.x + other.x) / 2, y: (place.y + other.y) / 2 };
    const { viewer } = this;
    const least = Math.min(viewer.fitting(), 1);
    const zoom = viewer.view.zoom * (apart(place) / Math.max(1, apart(before)));
    viewer.zoomTo(Math.max(least, Math.min(ZOOMS.at(-1), zoom)), this.between);
    viewer.move((place.x - before.x) / 2, (place.y - before.y) / 2);
  }

  _turn(event) {
    event.preventDefault();
    this.turned += event.deltaY * (event.deltaMode === 0 ? 1 : WHEEL);
    while (Math.abs(this.turned) >= WHEEL) {
      const direction = -Math.sign(this.turned);
      this.turned += direction * WHEEL;
      this.viewer.step(direction, this._place(event));
    }
  }

  _toggle(event) {
    if (this.viewer.whole) this.viewer.zoomTo(Math.max(1, this.viewer.view.zoom), this._place(event));
    else this.viewer.fit();
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const viewer = new Viewer(JSON.parse(byId("page").textContent));
  connect(viewer);
  heedKeys(viewer);
  new Dragging(viewer);
  viewer.set({});
});
