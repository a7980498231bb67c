// Everything that comes from clusters goes into the page as text (textContent), never as markup.
"use strict";

const REFRESH_MS = 2000;
const PAGE = 100;
const CHANGES_MAX = 100;
const $ = (id) => document.getElementById(id);
const view = { cluster: "", kind: "", words: "", shown: 0, last: 0, seen: -1 };

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return answer.json();
}

function span(seconds) {
  if (seconds === null) return "never";
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function row(name, value, mark) {
  return [make("dt", { textContent: name }), make("dd", { textContent: value, className: mark || "" })];
}

function card(of) {
  const heard = of.silent_seconds === null ? "not since the start" : `${span(of.silent_seconds)} ago`;
  const silent = of.silent_seconds === null || of.silent_seconds > 900 ? "bad" : of.silent_seconds > 400 ? "warn" : "good";
  const lag = of.queue_objects ? `${span(of.lag_seconds)}, ${of.queue_objects} waiting` : "none";
  const button = make("button", { className: "cluster", type: "button" },
    make("strong", { textContent: of.name || of.uid }),
    make("span", { className: "number", textContent: of.objects.toLocaleString("en") }),
    " objects",
    make("dl", {},
      ...row("Heard", heard, silent),
      ...row("Lag", lag, of.queue_objects ? "warn" : "good"),
      ...row("Mode", of.mode === "batch" ? `batch, session ${of.epoch}` : "original"),
      ...row("Changes since start", of.changes.toLocaleString("en")),
      ...row("Drift found", String(of.drifted), of.drifted ? "warn" : ""),
      ...row("Client", of.client_id)));
  button.dataset.uid = of.uid;
  button.setAttribute("aria-pressed", String(of.uid === view.cluster));
  button.addEventListener("click", () => choose(of.uid));
  return button;
}

function kindsOf(counts) {
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  return [["", "all kinds", all], ...Object.entries(counts).map(([list, count]) => [list, list.replaceAll("_", " "), count])]
    .map(([list, label, count]) => {
      const button = make("button", { type: "button", disabled: !count },
        make("span", { textContent: label }), make("span", { className: "count", textContent: count.toLocaleString("en") }));
      button.setAttribute("aria-pressed", String(list === view.kind));
      button.addEventListener("click", () => { view.kind = list; list_objects(true); refresh(); });
      return button;
    });
}

function stateOf(entry) {
  const object = entry.object || {};
  const parts = [object.phase, object.status, object.service_type, object.type, object.reason, object.schedule]
    .filter((part) => typeof part === "string" && part);
  if (typeof object.ready_replicas === "number") parts.push(`${object.ready_replicas}/${object.replicas}`);
  if (typeof object.number_ready === "number") parts.push(`${object.number_ready}/${object.desired_number_scheduled}`);
  if (Array.isArray(object.data_keys)) parts.push(`${object.data_keys.length} keys`);
  if (typeof object.node_name === "string") parts.push(object.node_name);
  return parts.slice(0, 3).join(" · ");
}

function objectRow(entry) {
  const cells = [entry.kind, entry.namespace, entry.name, stateOf(entry)]
    .map((text) => make("td", { textContent: text, title: text }));
  const line = make("tr", { tabIndex: 0 }, ...cells);
  const show = () => {
    $("object").querySelector("pre").textContent = JSON.stringify(entry.object, null, 2);
    $("object").showModal();
  };
  line.addEventListener("click", show);
  line.addEventListener("keydown", (event) => { if (event.key === "Enter") show(); });
  return line;
}

async function list_objects(again) {
  if (again) view.shown = 0;
  const asked = `${view.cluster} ${view.kind} ${view.words}`;
  const limit = again ? PAGE : Math.max(view.shown, PAGE);
  const more = !again && view.wantMore;
  const skip = more ? view.shown : 0;
  view.wantMore = false;
  const query = new URLSearchParams({ kind: view.kind, q: view.words, skip, limit: more ? PAGE : Math.min(limit, 200) });
  const answer = await get(`/api/clusters/${encodeURIComponent(view.cluster)}/objects?${query}`);
  if (asked !== `${view.cluster} ${view.kind} ${view.words}`) return;
  const rows = answer.objects.map(objectRow);
  if (more) $("objects").append(...rows); else $("objects").replaceChildren(...rows);
  view.shown = $("objects").children.length;
  $("found").textContent = `${answer.found.toLocaleString("en")} found`;
  $("more").hidden = view.shown >= answer.found;
}

function choose(uid) {
  if (view.cluster === uid) return;
  Object.assign(view, { cluster: uid, kind: "", words: "", shown: 0, last: 0, seen: -1 });
  $("search").value = "";
  $("changes").replaceChildren();
  location.hash = uid;
  refresh();
}

async function changes() {
  const query = new URLSearchParams({ after: view.last, cluster: view.cluster });
  const answer = await get(`/api/changes?${query}`);
  view.last = answer.last;
  for (const change of answer.changes.slice(-CHANGES_MAX)) {
    const mark = { added: "good", deleted: "bad" }[change.type] || "";
    $("changes").prepend(make("li", {},
      make("time", { textContent: change.at.slice(11, 19) }),
      make("span", { className: "what" }, make("span", { className: mark, textContent: change.type }), ` ${change.kind}`),
      make("small", { textContent: change.namespace ? `${change.namespace}/${change.name}` : change.name })));
  }
  while ($("changes").children.length > CHANGES_MAX) $("changes").lastChild.remove();
}

async function refresh() {
  const clusters = await get("/api/clusters");
  if (!view.cluster && clusters.length) {
    const asked = location.hash.slice(1);
    view.cluster = (clusters.find((of) => of.uid === asked) || clusters[0]).uid;
  }
  const cards = clusters.map(card);
  $("clusters").replaceChildren(...(cards.length ? cards
    : [make("p", { className: "empty", textContent: "No cluster has been heard yet. Register a client and create an ObsykAgent." })]));
  const current = clusters.find((of) => of.uid === view.cluster);
  $("detail").hidden = !current;
  if (current) {
    $("kinds").replaceChildren(...kindsOf(current.counts));
    if (view.seen !== current.changes) {
      view.seen = current.changes;
      await list_objects(view.shown === 0);
    }
    await changes();
  }
  $("state").textContent = `${clusters.length} ${clusters.length === 1 ? "cluster" : "clusters"}, live`;
  $("state").className = "";
  document.body.dataset.ready = "true";
}

async function live() {
  try { await refresh(); } catch (error) {
    $("state").textContent = `no answer: ${error.message}`;
    $("state").className = "bad";
  }
  setTimeout(live, REFRESH_MS);
}

let typing;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { view.words = $("search").value; list_objects(true); }, 200);
});
$("more").addEventListener("click", () => { view.wantMore = true; list_objects(false); });
live();
