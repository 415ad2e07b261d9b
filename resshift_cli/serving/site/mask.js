/* What of a photo is to be filled: painted on it, or an image that is white there. */

import * as api from "./api.js";

const byId = (id) => document.getElementById(id);
const MOST = 64e6; // pixels of a photo that can be painted on, at four bytes each

export class Mask {
  /** @param attempt  does something, and tells what goes wrong
   *  @param changed  called when it is another one */
  constructor(attempt, changed) {
    this.changed = changed;
    this.strokes = []; // each a brush's width and the points that it went through, in pixels
    this.photo = null;
    this.sent = null; // as the service keeps it, once it has it
    this.words = ""; // what is said of one that was chosen
    this.canvas = byId("paint");
    this.canvas.addEventListener("pointerdown", (event) => this._begin(event));
    this.canvas.addEventListener("pointermove", (event) => this._go(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => this._end());
    byId("undo").addEventListener("click", () => {
      this.strokes.pop();
      this._draw();
      this._end();
    });
    byId("mask").addEventListener("change", ({ target }) => {
      const [file] = target.files;
      target.value = "";
      if (file) attempt(() => this._choose(file));
    });
  }

  /** Take another photo, or none; `shown` says whether it is painted on. */
  begin(photo, shown) {
    const paints = shown && photo !== null && photo.width * photo.height <= MOST;
    if (photo !== this.photo) {
      this.photo = photo;
      this.strokes = [];
      this.sent = null;
      if (photo !== null) Object.assign(this.canvas, paints ? photoSize(photo) : { width: 1, height: 1 });
    } else if (paints && this.canvas.width !== photo.width) {
      Object.assign(this.canvas, photoSize(photo));
    }
    byId("masks").hidden = !shown || photo === null;
    this.canvas.hidden = !paints;
    this._draw();
    const usual = paints ? "Paint over what is to be filled." : "The photo is too large to be painted on.";
    const chosen = this.sent !== null && this.strokes.length === 0;
    this._tell(chosen ? this.words : this.strokes.length ? "" : usual);
  }

  get isEmpty() {
    return this.strokes.length === 0 && this.sent === null;
  }

  /** What the service calls it, which gets it first. */
  async id() {
    if (this.sent === null) {
      const content = await new Promise((done) => this.canvas.toBlob(done, "image/png"));
      this.sent = await api.send(new File([content], "mask.png"));
    }
    return this.sent.id;
  }

  async _choose(file) {
    const kept = await api.send(file);
    this.strokes = [];
    this.sent = kept;
    this._draw();
    this.words = `${kept.name}, ${kept.width} × ${kept.height}.`;
    this._tell(this.words);
    this.changed();
  }

  _tell(words) {
    byId("masked").textContent = words;
    byId("undo").disabled = this.strokes.length === 0;
  }

  _at(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  _begin(event) {
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    const scale = this.canvas.width / this.canvas.getBoundingClientRect().width;
    const at = this._at(event);
    this.strokes.push({ width: Number(byId("brush").value) * scale, points: [at, at] });
    this.painting = true;
    this._draw();
  }

  _go(event) {
    if (!this.painting) return;
    this.strokes.at(-1).points.push(this._at(event));
    this._stroke(this.strokes.at(-1));
  }

  _end() {
    this.painting = false;
    this.sent = null;
    this._tell("");
    this.changed();
  }

  _draw() {
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const stroke of this.strokes) this._stroke(stroke);
  }

  _stroke({ width, points }) {
    const context = this.canvas.getContext("2d");
    Object.assign(context, { lineWidth: width, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x, y);
    context.stroke();
  }
}

const photoSize = ({ width, height }) => ({ width, height });
