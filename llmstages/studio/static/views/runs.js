// Runs and their steps: states, progress of a running one, curves, the tail of its lines.

import {get, post} from "../api.js";
import {el, labeled, replace, select} from "../dom.js";
import {chart, scrolling, short, table} from "../parts.js";

export const title = "Runs";
export const key = "r";

const EVERY = 2000; // milliseconds between two looks at a run
const SHOWN_METRICS = 4;

export async function show(root, context) {
  const {parameters, signal} = context;
  const list = el("div");
  const detail = el("section", {"aria-label": "Step"});
  const choice = runChoice(context);
  if (choice) root.append(choice);
  root.append(detail, list);
  let shown = "";
  const look = async () => {
    const run = await get("/api/run", signal);
    const step =
      parameters[0] && (await get(`/api/step/${encodeURIComponent(parameters[0])}`, signal));
    if (step) delete step.now;
    // What has not changed stays, with the focus and the places to which people have scrolled.
    const now = JSON.stringify([run, step]);
    if (now === shown) return;
    shown = now;
    keepFocus(root, () => {
      replace(list, stepTable(run, parameters[0]), report(run));
      if (step) showStep(detail, parameters[0], step);
    });
  };
  await look();
  const timer = setInterval(() => look().catch(() => {}), EVERY);
  signal.addEventListener("abort", () => clearInterval(timer));
}

// Draws again and gives the focus back to the link that had it.
function keepFocus(root, draw) {
  const address =
    root.contains(document.activeElement) && document.activeElement.getAttribute("href");
  draw();
  if (address) root.querySelector(`a[href="${CSS.escape(address)}"]`)?.focus();
}

function report(run) {
  if (!run.report) return null;
  return el("p.soft", "The report of this run: ", el("code", `${run.report}/index.html`));
}

function runChoice({run}) {
  if (run.runs.length < 2) return null;
  const names = run.runs.map((one) => one.name);
  const choose = async (name) => {
    await post("/api/run", {name});
    location.hash = "#/runs";
    location.reload();
  };
  return labeled("Run", select(names, run.name, choose));
}

function stepTable(run, open) {
  const names = ["Step", "State", "Seconds", "Result"];
  const rows = run.steps.map((step) =>
    el(
      "tr",
      el(
        "th",
        {scope: "row"},
        el(
          "a",
          {
            href: `#/runs/${encodeURIComponent(step.name)}`,
            "aria-current": step.name === open ? "true" : null,
          },
          step.name,
        ),
      ),
      el("td", state(step)),
      el("td", short(step.seconds ?? null)),
      el("td", metrics(step)),
    ),
  );
  return table("Steps", names, rows);
}

function state(step) {
  const progress = step.progress;
  if (step.state !== "running" || !progress?.total)
    return el(`span.state.${step.state}`, step.state);
  return el(
    "span.state.running",
    el("progress", {
      value: progress.done,
      max: progress.total,
      "aria-label": `progress of ${step.name}`,
    }),
    ` ${short(progress.done)} of ${short(progress.total)}`,
    progress.left ? `, ${progress.left} left` : "",
  );
}

function metrics(step) {
  const shown = Object.entries(step.metrics).slice(0, SHOWN_METRICS);
  return shown.map(([name, value]) => `${name} ${short(value)}`).join(", ");
}

function showStep(root, name, step) {
  const open = root.querySelector("details")?.open;
  const all = Object.entries(step.metrics).map(([metric, value]) =>
    el("tr", el("th", {scope: "row"}, metric), el("td", short(value))),
  );
  replace(
    root,
    el("h2", name, " ", el("a.small", {href: `#/lineage/${encodeURIComponent(name)}`}, "lineage")),
    el(
      "div.charts",
      step.curves.map((curve) => chart(curve.name, curve.points)),
    ),
    all.length > 0 &&
      el(
        "details",
        {open},
        el("summary", `All ${all.length} metrics`),
        scrolling("Metrics", el("table", el("tbody", all))),
      ),
    el("h3", "Last lines"),
    el(
      "pre.log",
      {tabindex: 0, "aria-label": "Last lines of the log"},
      step.lines.join("\n") || "no log",
    ),
  );
}
