/* What is asked for: fields of the page's own, and one for every other option that there is. */

import * as api from "./api.js";

const byId = (id) => document.getElementById(id);
const OWN = ["model", "scale", "width", "height", "detail", "steps", "seed"];
// Of the others.
const FIRST = ["strength", "boxes", "grow", "feather", "aligned", "only_largest", "blend", "min_size", "background"]
  .concat(["format", "quality", "depth", "lossless", "strip_metadata"]);
const VERBS = { upscale: "Enlarge", restore: "Mend", inpaint: "Fill", face: "Restore" };
const OFTEN = 300; // milliseconds without a change, before an estimate is asked for

export function size(bytes) {
  const [unit, power] = bytes >= 1e9 ? ["GB", 1e9] : bytes >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
  return `${Number((bytes / power).toPrecision(2))} ${unit}`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export class Settings {
  /** @param models   as the API lists them
   *  @param options  as the API describes them, by task and name
   *  @param given    whether a photo is chosen, and the fields that name it
   *  @param complain told of what can't be, or null */
  constructor(models, options, given, complain) {
    this.models = models;
    this.options = options;
    this.given = given;
    this.complain = complain;
    this.dialled = false; // whether a person has set the detail
    this.asked = 0;
    byId("task").addEventListener("change", () => this._showTask());
    byId("detail").addEventListener("input", () => {
      this.dialled = true;
      this._showDial();
    });
    byId("model").addEventListener("change", () => this._showModel());
    byId("settings").addEventListener("input", () => this.changed());
    this._showTask();
  }

  get task() {
    return byId("task").value;
  }

  get model() {
    return this.models.find(({ name, task }) => task === this.task && name === byId("model").value);
  }

  _showTask() {
    const { task } = this;
    const options = this.options[task];
    const able = this.models.filter((model) => model.task === task);
    byId("model").replaceChildren(...able.map(({ name }) => new Option(name, name)));
    const others = Object.entries(options).filter(([name]) => !OWN.includes(name));
    const rank = ([name]) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
    others.sort((one, other) => rank(one) - rank(other));
    byId("more").replaceChildren(...others.map(([name, option]) => this._field(name, option)));
    byId("sizes").hidden = !("scale" in options);
    for (const each of byId("measure").options) each.disabled = each.value !== "scale" && !("width" in options);
    if (byId("measure").selectedOptions[0].disabled) byId("measure").value = "scale";
    byId("make").textContent = VERBS[task];
    this._showModel();
  }

  _field(name, option) {
    const words = name.replaceAll("_", " ");
    if (option.type === "boolean") {
      const label = element("label", { className: "check", title: option.description });
      label.append(element("input", { type: "checkbox", name }), words);
      return label;
    }
    const field = element("div", { className: "field", title: option.description });
    const choices = name === "background" ? this._backgrounds() : option.enum;
    const input = choices
      ? element("select", { name })
      : element("input", { name, type: ["string", "array"].includes(option.type) ? "text" : "number", step: "any" });
    input.id = `option-${name}`;
    if (choices) input.append(new Option("as usual", ""), ...choices.map((each) => new Option(each)));
    else input.placeholder = "as usual";
    field.append(element("label", { htmlFor: input.id, textContent: words }), input);
    return field;
  }

  /** What faces may be put over, by name. */
  _backgrounds() {
    return ["none", ...this.models.filter(({ task }) => task === "upscale").map(({ name }) => name)];
  }

  /** Whether what is asked for can't be done here, whatever the photo. */
  get isBlocked() {
    if (this.model === undefined) return true; // while another task is being chosen
    const aligned = byId("more").querySelector("[name=aligned]");
    return this.model.missing !== null && !aligned?.checked;
  }

  _showModel() {
    const { model } = this;
    this.dialled = false;
    const terms = byId("terms");
    const licence = element(model.licence_urls.length ? "a" : "span", { textContent: model.licence });
    if (model.licence_urls.length) {
      Object.assign(licence, { href: model.licence_urls[0], target: "_blank", rel: "noreferrer" });
    }
    terms.replaceChildren(`${model.description}. `, licence);
    if (!model.commercial) {
      terms.append(" ", element("span", { className: "warning", textContent: "No commercial use." }));
    }
    if (model.missing !== null) {
      terms.append(" ", element("span", { className: "warning", textContent: model.missing }));
    } else if (!model.here) terms.append(` ${size(model.bytes)} are fetched first.`);
    byId("steps").placeholder = model.steps ?? "";
    byId("steps").max = model.steps ?? "";
    byId("size").placeholder = model.scale ?? "";
    byId("dial").hidden = model.dial === false;
    byId("detail").value = model.detail ?? 1;
    this._showDial();
  }

  _showDial() {
    const { value } = byId("detail");
    byId("amount").value = this.dialled ? value : `${value}, as the model says`;
  }

  /** What is asked for, by the names of the API; what is left to the model is left out. */
  fields() {
    const found = { task: this.task, model: this.model.name };
    const number = byId("size").value;
    const measure = byId("measure").value;
    if (number !== "" && !byId("sizes").hidden) {
      const names = measure === "side" ? ["width", "height"] : [measure];
      for (const name of names) found[name] = Number(number);
    }
    for (const name of ["steps", "seed"]) if (byId(name).value !== "") found[name] = byId(name).value;
    if (this.dialled && !byId("dial").hidden) found.detail = Number(byId("detail").value);
    for (const input of byId("more").querySelectorAll("[name]")) {
      const value = input.type === "checkbox" ? input.checked : input.value;
      if (value !== "" && value !== false) found[input.name] = value;
    }
    return found;
  }

  /** Something is asked for otherwise: say what it would take. */
  changed() {
    const ready = !this.isBlocked && this.given.isThere;
    byId("make").disabled = !ready;
    byId("preview").disabled = !ready;
    clearTimeout(this.timer);
    if (ready) {
      this.timer = setTimeout(() => this._estimate(), OFTEN);
    } else {
      this.asked += 1; // an answer that is on its way is of something else
      byId("estimate").textContent = "";
    }
  }

  async _estimate() {
    const turn = ++this.asked;
    let words = "";
    let trouble = null;
    try {
      const told = await api.estimate({ ...this.fields(), ...(await this.given.fields()) });
      const about = told.at_least ? "at least about" : "about";
      const time = told.seconds === null ? "" : `, ${about} ${duration(told.seconds)}`;
      words = told.width === null ? "" : `${told.width} × ${told.height}${time}`;
    } catch (error) {
      trouble = error;
    }
    if (turn !== this.asked) return; // something newer is on its way
    byId("estimate").textContent = words;
    this.complain(trouble);
  }
}

export function element(name, properties) {
  return Object.assign(document.createElement(name), properties);
}
