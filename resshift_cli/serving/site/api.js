/* What the page asks of the service. */

const CLIENT = remembered("client") ?? remember("client", crypto.getRandomValues(new Uint32Array(2)).join("-"));

/** A failure as the service tells it. */
export class Problem extends Error {
  constructor(told) {
    super([told.detail, told.hint].filter(Boolean).join(" "));
    this.status = told.status;
  }
}

/** What this tab knows of earlier; null where it knows nothing, or may not keep anything. */
export function remembered(name) {
  try {
    return JSON.parse(sessionStorage.getItem(`resshift-${name}`));
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    sessionStorage.setItem(`resshift-${name}`, JSON.stringify(value));
  } catch {
    // A reload then begins anew.
  }
  return value;
}

async function ask(path, options = {}) {
  const headers = { "resshift-client": CLIENT, prefer: "respond-async", ...options.headers };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Problem({ detail: "The service does not answer.", hint: "Start it again: resshift serve" });
  }
  const told = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Problem(told);
  return told;
}

const post = (path, fields) =>
  ask(path, {
    method: "POST",
    body: JSON.stringify(fields),
    headers: { "content-type": "application/json" },
  });

export const version = () => ask("/api/version");
export const models = () => ask("/api/models");
/** What may be asked for, by task. */
export const options = async () => {
  const { schemas } = (await ask("/api/openapi.json")).components;
  const names = Object.keys(schemas).filter((name) => name.endsWith("-options"));
  return Object.fromEntries(
    names.map((name) => [name.replace("-options", ""), schemas[name].properties]),
  );
};
export const estimate = (fields) => post("/api/estimate", fields);
export const preview = (fields) => post("/api/preview", fields);
export const make = ({ task, ...fields }) => post(`/api/${task}`, fields);
export const folders = () => ask("/api/folders");
export const batch = (fields) => post("/api/batch", fields);
export const job = (id) => ask(`/api/jobs/${id}`);
/** End a job, or have what it gave deleted; what is gone already is as it should be. */
export const end = (id) =>
  ask(`/api/jobs/${id}`, { method: "DELETE" }).catch((error) => {
    if (error.status !== GONE) throw error;
  });

export async function send(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    const hint = "If it is a folder, drop the photos that are in it.";
    throw new Problem({ detail: `${file.name} can't be read.`, hint });
  }
  const body = new FormData();
  body.append("image", file, file.name);
  return ask("/api/photos", { method: "POST", body });
}

const STATES = ["queued", "running", "done", "failed", "cancelled"];
export const ENDED = STATES.slice(2);

const GONE = 404; // of HTTP

const followed = new Map(); // a job as it was last told, and what is called with news, by its id
let events = null; // one stream for all of them: browsers have few connections

/** Have `changed` called with a job whenever there is news, up to its end. */
export function watch(told, changed) {
  followed.set(told.id, { told, changed });
  follow();
}

function follow() {
  events?.close();
  const asked = [...followed.keys()].map((id) => `job=${encodeURIComponent(id)}`);
  events = new EventSource(`/api/events?${asked.join("&")}`);
  for (const state of STATES) events.addEventListener(state, ({ data }) => take(JSON.parse(data)));
  events.addEventListener("error", look);
}

function take(told) {
  const known = followed.get(told.id);
  if (known === undefined) return;
  known.told = told;
  if (ENDED.includes(told.state)) followed.delete(told.id);
  if (followed.size === 0) events.close();
  known.changed(told);
}

/** The stream broke off; a service that was started anew knows none of the jobs. */
async function look() {
  for (const [id, { told }] of followed) {
    try {
      await job(id);
    } catch (error) {
      if (error.status === GONE) take({ ...told, state: "failed", error: { detail: error.message } });
    }
  }
}
