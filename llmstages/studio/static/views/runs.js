// The steps of the run: what was made, when, with which numbers.

import {el} from "../dom.js";

export const title = "Runs";
export const key = "r";

export function show(root, {run}) {
  const head = el("thead", el("tr", ["Step", "Makes", "Finished"].map((name) => el("th", {scope: "col"}, name))));
  const rows = run.steps.map((step) => el("tr",
    el("th", {scope: "row"}, step.name),
    el("td", step.kind),
    el("td", new Date(step.finished * 1000).toLocaleString())));
  root.append(el("div.scroll", {tabindex: 0, role: "region", "aria-label": "Steps"}, el("table", head, el("tbody", rows))));
}
