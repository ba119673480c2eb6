// An answer back to the pages that its words stand in.

import {post} from "../api.js";
import {el, replace} from "../dom.js";
import {busy, hasModels, modelChoice, numberField, valueOf} from "../parts.js";

export const title = "Trace";
export const key = "a";

export function show(root, {run, parameters, signal}) {
  if (!hasModels(root, run)) return;
  const model = modelChoice(run, parameters[0], null, "What it was trained on");
  const words = numberField("Words in a row at least", 5, {min: 2, max: 50, step: 1});
  const text = el("textarea", {"aria-label": "Text", placeholder: "An answer of the model"});
  const result = el("div", {"aria-live": "polite"});
  const button = el("button.primary", {type: "button", onclick: () => busy(button, look)}, "Trace");
  const look = async () => {
    replace(result, el("p.soft", "Reading what the model was trained on ..."));
    try {
      const body = {model: valueOf(model), text: text.value, words: Number(valueOf(words))};
      draw(result, text.value, await post("/api/trace", body, signal));
    } catch (error) {
      replace(result);
      throw error;
    }
  };
  root.append(text, el("div.row", model, words, button), result);
}

function draw(root, text, {runs, sources, read_all: readAll, seconds}) {
  const read = sources
    .map((source) => `${source.documents.toLocaleString()} of ${source.step}`)
    .join(", ");
  replace(
    root,
    el(
      "p.soft",
      `read in ${seconds} s: ${read}${readAll ? "" : " (a part: there is too much to read all of it)"}`,
    ),
    runs.length
      ? el("p.marked", marked(text, runs))
      : el(
          "p",
          "No run of words stands in it. The model made this up, or learned it in other words.",
        ),
    runs.map(runPanel),
  );
}

function marked(text, runs) {
  const parts = [];
  let place = 0;
  runs.forEach((run, index) => {
    parts.push(text.slice(place, Math.max(place, run.begin)));
    parts.push(
      el(
        "mark",
        el(
          "a",
          {
            href: `#run-${index}`,
            onclick: (event) => {
              event.preventDefault();
              document.getElementById(`run-${index}`).scrollIntoView();
            },
          },
          text.slice(Math.max(place, run.begin), run.end),
        ),
      ),
    );
    place = Math.max(place, run.end);
  });
  parts.push(text.slice(place));
  return parts;
}

function runPanel(run, index) {
  return el(
    "section.panel",
    {id: `run-${index}`},
    el(
      "h2",
      `${run.words} words in ${run.documents} ${run.documents === 1 ? "document" : "documents"}`,
    ),
    run.pages.map((page) =>
      el(
        "div.page",
        el(
          "p.soft",
          page.url || page.id,
          " in ",
          el("a", {href: `#/lineage/${encodeURIComponent(page.step)}`}, page.step),
        ),
        el("p", "... ", page.before, el("mark", page.match), page.after, " ..."),
        page.history?.length > 0 &&
          el(
            "details",
            el("summary", "What became of this page"),
            el(
              "ul",
              page.history.map((line) => el("li", line)),
            ),
          ),
      ),
    ),
  );
}
