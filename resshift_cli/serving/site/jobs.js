/* What was asked for in this session, how far it is, and what it gave. */

import * as api from "./api.js";
import { duration, element, size } from "./settings.js";

const byId = (id) => document.getElementById(id);
const MOST = 50; // jobs that are listed

export class Jobs {
  /** @param attempt  does something, and tells what goes wrong */
  constructor(attempt) {
    this.attempt = attempt;
    this.rows = new Map(); // by id
  }

  /** List the jobs of before a reload, as far as the service has them. */
  async resume() {
    for (const id of api.remembered("jobs") ?? []) {
      try {
        this.add(await api.job(id), { show: false });
      } catch {
        // It is gone.
      }
    }
    this._remember();
  }

  add(job, { show = true } = {}) {
    const row = new Row(job, this);
    this.rows.set(job.id, row);
    byId("jobs").prepend(row.item);
    for (const [id, old] of this.rows) {
      if (this.rows.size <= MOST) break;
      if (api.ENDED.includes(old.job.state)) this.forget(id);
    }
    byId("session").hidden = false;
    this._remember();
    row.change(job);
    if (!api.ENDED.includes(job.state)) {
      api.watch(job, (told) => {
        row.change(told);
        if (show && told.state === "done" && told.kind !== "batch") this.show(told);
      });
    }
  }

  forget(id) {
    this.rows.get(id)?.item.remove();
    this.rows.delete(id);
    byId("session").hidden = this.rows.size === 0;
    this._remember();
  }

  _remember() {
    api.remember("jobs", [...this.rows.keys()]);
  }

  /** Follow a link to a result that is still there; else the page would give way to an error. */
  download(event, { id }) {
    event.preventDefault();
    const { href } = event.target;
    this.attempt(async () => {
      await api.job(id);
      location.assign(href);
    });
  }

  /** Compare the outcome of a job with its photo. */
  show(job) {
    const place = `/api/jobs/${job.id}`;
    const { result } = job;
    const whole = isWhole(job);
    byId("title").textContent = whole ? result.name : `A crop of ${job.input}`;
    byId("download").hidden = !whole;
    byId("download").href = `${place}/result`;
    byId("download").onclick = (event) => this.download(event, job);
    const facts = whole
      ? [`${result.width} × ${result.height}`, size(result.bytes)]
      : [`${result.crop.width} × ${result.crop.height} at ${result.crop.left}, ${result.crop.top}`];
    const steps = `${result.steps} step${result.steps === 1 ? "" : "s"}`;
    if (result.strength !== undefined) facts.push(`strength ${result.strength}`);
    facts.push(job.model, steps, `detail ${result.detail}`, `seed ${result.seed}`);
    if (result.remark) facts.push(result.remark);
    byId("told").textContent = [...facts, `${result.seconds.toFixed(1)} s`].join(", ");
    for (const each of result.warnings ?? []) byId("told").append(` ${each}`);
    byId("alone").href = `${place}/view`;
    byId("alone").hidden = false;
    const view = byId("view");
    view.hidden = false;
    view.src = `${place}/view`;
    byId("result").hidden = false;
    byId("result").scrollIntoView({ block: "start", behavior: "smooth" });
  }
}

/** Whether a job is a whole photo's. */
const isWhole = ({ kind }) => kind !== "preview" && kind !== "batch";

/** What became of a folder. */
function told({ output, found, skipped, done, failed, faces, failures }) {
  const restored = faces === null ? "" : ` ${faces} face${faces === 1 ? "" : "s"} restored.`;
  const counts = `${found} images, ${done} done, ${skipped} finished before, ${failed} failed.${restored} In ${output}`;
  return [counts, ...failures.map((each) => each.message)].join(". ");
}

/** One job in the list. */
class Row {
  constructor(job, jobs) {
    this.jobs = jobs;
    this.job = job;
    this.item = element("li", {});
    this.words = element("span", { className: "words" });
    this.buttons = element("span", { className: "row" });
    this.bar = element("progress", { max: 1 });
    this.item.append(this.words, this.buttons, this.bar);
  }

  change(job) {
    const before = this.job.state;
    this.job = job;
    this.words.textContent = `${this._what()}: ${this._state()}`;
    this.bar.hidden = job.state !== "running";
    if (job.progress > 0) this.bar.value = job.progress;
    else this.bar.removeAttribute("value"); // which moves to and fro
    if (before !== job.state || !this.buttons.childElementCount) this._offer();
  }

  _what() {
    const { kind, input } = this.job;
    return { preview: `crop of ${input}`, batch: `folder ${input}` }[kind] ?? input;
  }

  _state() {
    const { state, stage, progress, seconds_left: left, error, result, model } = this.job;
    if (state === "queued") return "waits for its turn";
    if (state === "failed") return [error.detail, error.hint].join(" ");
    if (state === "cancelled") return "cancelled";
    if (state === "done" && this.job.kind === "batch") return told(result);
    if (state === "done") {
      const what = isWhole(this.job) ? `${result.width} × ${result.height}` : "preview";
      return [model, what, result.remark].filter(Boolean).join(", ");
    }
    const share = progress > 0 ? ` ${Math.floor(progress * 100)}%` : "";
    const rest = left === null ? "" : `, about ${duration(left)} left`;
    return `${stage || "beginning"}${share}${rest}`;
  }

  _offer() {
    const { id, kind, state } = this.job;
    const button = (words, act) => {
      const made = element("button", { type: "button", textContent: words });
      made.addEventListener("click", () => this.jobs.attempt(act));
      return made;
    };
    if (!api.ENDED.includes(state)) {
      this.buttons.replaceChildren(button("Cancel", () => api.end(id)));
      return;
    }
    const offered = [];
    const show = async () => this.jobs.show(await api.job(id));
    if (state === "done" && kind !== "batch") offered.push(button("Show", show));
    if (state === "done" && isWhole(this.job)) {
      const href = `/api/jobs/${id}/result`;
      const link = element("a", { className: "button", href, textContent: "Download" });
      link.addEventListener("click", (event) => this.jobs.download(event, this.job));
      offered.push(link);
    }
    const remove = button("Delete", async () => {
      await api.end(id);
      this.jobs.forget(id);
    });
    this.buttons.replaceChildren(...offered, remove);
  }
}
