// The same prompt to several models, side by side.

import {stream} from "../api.js";
import {el, replace} from "../dom.js";
import {busy, checkBoxes, checkedOf, defaultModel, numberField, valueOf} from "../parts.js";

export const title = "Compare";
export const key = "m";

const MOST = 4;

export function show(root, {run, signal}) {
  const first = [defaultModel(run), run.models[0]];
  const boxes = checkBoxes(run.models, (name) => first.includes(name));
  const text = el("textarea", {"aria-label": "Prompt", placeholder: "One prompt for all"});
  const temperature = numberField("Temperature", 0, {max: 10});
  const button = el(
    "button.primary",
    {type: "button", onclick: () => busy(button, ask)},
    "Ask all",
  );
  const result = el("div.columns");
  const ask = async () => {
    const models = checkedOf(boxes);
    if (!models.length || models.length > MOST) throw new Error(`Choose 1 to ${MOST} models.`);
    if (!text.value.trim()) throw new Error("Write a prompt.");
    const cells = models.map((model) =>
      el(
        "section.panel",
        {"aria-label": model},
        el("h2", model),
        el("div.turn.assistant", {"aria-live": "polite"}),
        el("p.soft"),
      ),
    );
    replace(result, cells);
    const settings = {temperature: Number(valueOf(temperature))};
    const turns = [{role: "user", content: text.value, tool: ""}];
    await Promise.all(
      models.map((model, index) => answer({model, turns, ...settings}, cells[index], signal)),
    );
  };
  root.append(
    el("fieldset.row", el("legend", "Models"), boxes),
    text,
    el("div.row", temperature, button),
    result,
  );
}

async function answer(body, cell, signal) {
  const [, place, facts] = cell.children;
  const began = performance.now();
  try {
    for await (const event of stream("/api/chat", body, signal)) {
      if (event.what === "text") place.append(event.text);
      if (event.what === "call") place.append(` [calls ${event.text}] `);
      if (event.what === "result") place.append(` [${event.text}] `);
      if (event.what === "done") {
        const seconds = ((performance.now() - began) / 1000).toFixed(2);
        const made = event.tokens.filter((token) => token.supervised).length;
        facts.textContent = `${made} tokens in the last turn, ${seconds} s`;
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") cell.append(el("p.error", {role: "alert"}, error.message));
  }
}
