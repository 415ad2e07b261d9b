/* The page: photos, settings, and what became of them. */

import * as api from "./api.js";
import { Jobs } from "./jobs.js";
import { Mask } from "./mask.js";
import { Settings } from "./settings.js";

const byId = (id) => document.getElementById(id);
const SIDE = 128; // pixels of a photo that a preview shows

function complain(error) {
  const place = byId("trouble");
  place.textContent = error === null ? "" : error.message;
  place.hidden = error === null;
  if (error !== null) place.scrollIntoView({ block: "nearest" });
}

/** Do something, and tell what goes wrong. */
async function attempt(action) {
  complain(null);
  try {
    return await action();
  } catch (error) {
    complain(error);
    return null;
  }
}

/** The photos that were dropped, and the one that is chosen. */
class Photos {
  constructor(changed) {
    this.changed = changed;
    this.known = [];
    this.chosen = null;
    this.at = null; // where the preview is, in pixels of the photo
    byId("file").addEventListener("change", (event) => {
      this.add([...event.target.files]);
      event.target.value = "";
    });
    const drop = byId("drop");
    const over = (on) => drop.classList.toggle("over", on);
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      over(true);
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget ?? over(false));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      over(false);
      this.add([...event.dataTransfer.files]);
    });
    byId("small").addEventListener("click", (event) => this.point(event));
    byId("small").addEventListener("load", () => this.showMark());
    addEventListener("resize", () => this.showMark());
    this.add([...byId("file").files]); // chosen before the page was ready
  }

  async add(files) {
    const troubles = [];
    for (const file of files) {
      byId("facts").textContent = `Reading ${file.name}`;
      byId("chosen").hidden = false;
      try {
        const photo = await api.send(file);
        this.known.push(photo);
        this.choose(photo);
      } catch (error) {
        troubles.push(error.message);
      }
    }
    if (this.chosen === null) byId("chosen").hidden = true;
    else this.show();
    complain(troubles.length ? new Error(troubles.join(" ")) : null);
  }

  choose(photo) {
    this.chosen = photo;
    this.at = null;
    this.show();
    this.changed();
  }

  show() {
    const { id, name, width, height, depth, format, frames, warnings } = this.chosen;
    const moving = frames > 1 ? `, ${frames} frames` : "";
    const facts = `${name}: ${width} × ${height}, ${format}, ${depth} bits${moving}.`;
    byId("facts").textContent = [facts, ...warnings].join(" ");
    const small = byId("small");
    small.alt = name;
    const source = `/api/photos/${id}/small`;
    if (small.getAttribute("src") !== source) small.src = source;
    byId("chosen").hidden = false;
    this.showMark();
    const several = this.known.length > 1 ? this.known : [];
    byId("photos").replaceChildren(...several.map((photo) => this._button(photo)));
  }

  _button(photo) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = photo.name;
    button.setAttribute("aria-pressed", photo === this.chosen);
    button.addEventListener("click", () => this.choose(photo));
    return button;
  }

  point(event) {
    const box = event.target.getBoundingClientRect();
    const { width, height } = this.chosen;
    const within = (share, length) => Math.max(0, Math.min(length - 1, Math.floor(share * length)));
    this.at = {
      x: within((event.clientX - box.left) / box.width, width),
      y: within((event.clientY - box.top) / box.height, height),
    };
    this.showMark();
  }

  showMark() {
    const mark = byId("mark");
    mark.hidden = this.at === null;
    if (this.at === null) return;
    const small = byId("small");
    const { width, height } = this.chosen;
    const sides = [Math.min(SIDE, width), Math.min(SIDE, height)];
    const place = (at, side, length) => Math.max(0, Math.min(length - side, at - side / 2)) / length;
    mark.style.left = `${place(this.at.x, sides[0], width) * small.clientWidth}px`;
    mark.style.top = `${place(this.at.y, sides[1], height) * small.clientHeight}px`;
    mark.style.width = `${(sides[0] / width) * small.clientWidth}px`;
    mark.style.height = `${(sides[1] / height) * small.clientHeight}px`;
  }
}

async function begin() {
  const told = await attempt(async () =>
    Promise.all([api.version(), api.models(), api.options(), api.folders()]),
  );
  if (told === null) return;
  const [version, models, options, folders] = told;
  byId("about").textContent = version.version;
  const jobs = new Jobs(attempt);
  const mask = new Mask(attempt, () => settings.changed());
  const given = {
    get isThere() {
      const isTold = settings.task !== "inpaint" || !mask.isEmpty || "boxes" in settings.fields();
      return photos.chosen !== null && isTold;
    },
    async fields() {
      const photo = photos.chosen.id;
      return settings.task === "inpaint" && !mask.isEmpty ? { photo, mask: await mask.id() } : { photo };
    },
  };
  const photos = new Photos(() => {
    mask.begin(photos.chosen, settings.task === "inpaint");
    settings.changed();
  });
  const settings = new Settings(models, options, given, complain);
  byId("task").addEventListener("change", () => {
    const fills = settings.task === "inpaint";
    mask.begin(photos.chosen, fills);
    byId("pointing").hidden = fills;
    byId("maskfolder").hidden = !fills;
    settings.changed();
  });
  byId("preview").addEventListener("click", () =>
    attempt(async () => {
      // What is filled is shown where the hole is.
      const crop = settings.task === "inpaint" ? { size: 2 * SIDE } : { size: SIDE, ...photos.at };
      const asked = { ...settings.fields(), ...(await given.fields()), ...crop };
      jobs.add(await api.preview(asked));
    }),
  );
  byId("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      jobs.add(await api.make({ ...settings.fields(), ...(await given.fields()) }));
    });
  });
  byId("folders").hidden = folders.length === 0;
  byId("offered").append(...folders.map((folder) => new Option(folder)));
  byId("folders").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      const masks = settings.task === "inpaint" ? { masks: byId("folderofmasks").value } : {};
      jobs.add(await api.batch({ ...settings.fields(), ...masks, folder: byId("folder").value }));
    });
  });
  jobs.resume();
}

begin();
