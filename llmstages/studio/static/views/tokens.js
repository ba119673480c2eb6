// A text under the tokenizers of the run, side by side, as it is typed.

import {post} from "../api.js";
import {el, replace} from "../dom.js";
import {checkBoxes, checkedOf, tokenStrip, tokenTable} from "../parts.js";

export const title = "Tokens";
export const key = "t";

const WAIT = 200; // milliseconds after the last key
const EXAMPLE = "Strawberry has 3 r's. Größe: 12345 + 678 = 13023 🍓";

export function show(root, {run, signal}) {
  const names = [...new Set(run.tokenizers)];
  if (!names.length) {
    root.append(el("p", "There is no tokenizer yet. Run `llmstages run only=tokenizer`."));
    return;
  }
  const text = el("textarea", {"aria-label": "Text", oninput: () => later()}, EXAMPLE);
  const boxes = checkBoxes(
    names,
    (name, index) => index === 0,
    () => later(),
  );
  const result = el("div", {"aria-live": "polite"});
  let timer = null;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => look().catch((error) => report(result, error)), WAIT);
  };
  const look = async () => {
    const tokenizers = checkedOf(boxes);
    if (!text.value || !tokenizers.length) {
      replace(result);
      return;
    }
    draw(result, await post("/api/tokens", {text: text.value, tokenizers}, signal));
  };
  root.append(text, el("fieldset.row", el("legend", "Tokenizers"), boxes), result);
  later();
}

function report(root, error) {
  if (error.name !== "AbortError") replace(root, el("p.error", {role: "alert"}, error.message));
}

function draw(root, {bytes, columns}) {
  replace(
    root,
    el(
      "div.columns",
      columns.map(({name, tokens}) =>
        el(
          "section.panel",
          el("h2", name),
          el(
            "p.soft",
            `${tokens.length} tokens for ${bytes} bytes, ${(bytes / tokens.length).toFixed(2)} bytes a token`,
          ),
          tokenStrip(tokens),
          tokenTable(tokens),
        ),
      ),
    ),
  );
}
