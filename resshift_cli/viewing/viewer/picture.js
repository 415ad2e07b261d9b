/* A picture of the page: tiles at halved sizes, decoded when they come into view. */
"use strict";

const MOST_TILES = 192; // that stay decoded, about 1 MB each

/** Decoded tiles of all pictures, the longest unused of which are let go. */
class Tiles {
  /** @param changed  called when a tile is decoded
   *  @param failed  called when one can't be had, whose place then stays coarse
   *  @param address  where a server has tiles that the page does not hold itself */
  constructor(changed, failed, address) {
    this.changed = changed;
    this.failed = failed;
    this.address = address;
    this.known = new Map();
    this.turn = 0;
  }

  /** The tile of a place if it is decoded; else it will be, and `changed` is called then. */
  get(place) {
    let tile = this.known.get(place);
    if (tile === undefined) {
      const image = new Image();
      tile = { image, ready: false };
      image.src = this._source(place);
      image.decode().then(() => {
        tile.ready = true;
        this.changed();
      }, this.failed);
    }
    this.known.delete(place); // and to the end, as the one used last
    this.known.set(place, tile);
    tile.turn = this.turn;
    return tile.ready ? tile.image : null;
  }

  _source(place) {
    if (this.address !== null) return this.address + place;
    const stored = document.getElementById(`tile-${place}`);
    return `data:${stored.dataset.type};base64,${stored.textContent}`;
  }

  /** End of a drawing: what it did not need may go. */
  tidy() {
    for (const [place, tile] of this.known) {
      if (this.known.size <= MOST_TILES) break;
      if (tile.turn < this.turn) this.known.delete(place);
    }
    this.turn += 1;
  }
}

/** Where pixels of the frame are on the canvas; the frame is the largest picture. */
class Placing {
  /** @param pane  left, top, width and height on the canvas
   *  @param view  x, y of the frame that is in its middle, and zoom: canvas by frame pixels */
  constructor(pane, view) {
    this.pane = pane;
    this.zoom = view.zoom;
    this.left = Math.round(pane.left + pane.width / 2 - view.x * view.zoom);
    this.top = Math.round(pane.top + pane.height / 2 - view.y * view.zoom);
  }

  toFrame(x, y) {
    return { x: (x - this.left) / this.zoom, y: (y - this.top) / this.zoom };
  }

  toCanvas(point) {
    return { x: this.left + point.x * this.zoom, y: this.top + point.y * this.zoom };
  }
}

class Picture {
  /** @param about  title, width, height, levels, as the page has them */
  constructor(about, number, page, tiles) {
    Object.assign(this, about);
    this.number = number;
    this.side = page.tile;
    this.stretch = { x: page.width / about.width, y: page.height / about.height };
    this.tiles = tiles;
  }

  /** Draw what of it is in a pane; coarsely where the tiles are not decoded yet. */
  draw(context, placing) {
    const across = this.stretch.x * placing.zoom;
    const down = this.stretch.y * placing.zoom;
    const { pane, left, top } = placing;
    context.save();
    context.beginPath();
    context.rect(pane.left, pane.top, pane.width, pane.height);
    context.clip();
    context.beginPath();
    context.rect(left, top, Math.round(this.width * across), Math.round(this.height * down));
    context.clip();
    context.imageSmoothingEnabled = placing.zoom < 1;
    const wanted = Math.floor(Math.log2(1 / Math.max(across, down)));
    const level = Math.max(0, Math.min(this.levels - 1, wanted));
    this._drawLevel(context, placing, level, across, down);
    context.restore();
  }

  /** The whole picture from its smallest level, within an area. */
  _drawWhole(context, { left, top }, across, down, area) {
    const image = this.tiles.get(`${this.number}-${this.levels - 1}-0-0`);
    if (image === null) return;
    const size = 2 ** (this.levels - 1);
    context.save();
    context.beginPath();
    context.rect(...area);
    context.clip();
    context.drawImage(image, left, top, image.width * size * across, image.height * size * down);
    context.restore();
  }

  _drawLevel(context, { pane, left, top }, level, across, down) {
    const width = this.side * 2 ** level * across;
    const height = this.side * 2 ** level * down;
    const columns = Math.ceil(this.width / this.side / 2 ** level);
    const rows = Math.ceil(this.height / this.side / 2 ** level);
    const firstColumn = Math.max(0, Math.floor((pane.left - left) / width));
    const lastColumn = Math.min(columns - 1, Math.floor((pane.left + pane.width - left) / width));
    const firstRow = Math.max(0, Math.floor((pane.top - top) / height));
    const lastRow = Math.min(rows - 1, Math.floor((pane.top + pane.height - top) / height));
    for (let row = firstRow; row <= lastRow; row++) {
      for (let column = firstColumn; column <= lastColumn; column++) {
        const image = this.tiles.get(`${this.number}-${level}-${column}-${row}`);
        // Edges on whole pixels: neighbours then meet without a seam.
        const x = Math.round(left + column * width);
        const y = Math.round(top + row * height);
        if (image === null) {
          const right = Math.round(left + (column + 1) * width);
          const bottom = Math.round(top + (row + 1) * height);
          this._drawWhole(context, { left, top }, across, down, [x, y, right - x, bottom - y]);
          continue;
        }
        const right = Math.round(left + column * width + image.width * 2 ** level * across);
        const bottom = Math.round(top + row * height + image.height * 2 ** level * down);
        context.drawImage(image, x, y, right - x, bottom - y);
      }
    }
  }
}
