// Inside a model: attention of each head, the logit lens, norms of the residual stream.

import {post} from "../api.js";
import {el, replace} from "../dom.js";
import {
  busy,
  hasModels,
  modelChoice,
  percent,
  scrolling,
  short,
  table,
  tokenStrip,
  valueOf,
  visible,
} from "../parts.js";

export const title = "Inside";
export const key = "i";

const SMALL = 64; // pixels of a small matrix
const LARGE = 360;

export function show(root, {run, parameters, signal}) {
  if (!hasModels(root, run)) return;
  const model = modelChoice(run, parameters[0]);
  const text = el("textarea", {"aria-label": "Text"}, "The cat sat on the mat. The cat sat on the");
  const result = el("div");
  const button = el(
    "button.primary",
    {type: "button", onclick: () => busy(button, look)},
    "Look inside",
  );
  const look = async () => {
    draw(result, await post("/api/inside", {model: valueOf(model), text: text.value}, signal));
  };
  root.append(
    text,
    el("div.row", model, button, el("a", {href: "#/forward_pass"}, "Walk through a forward pass")),
    result,
  );
}

function draw(root, data) {
  const position = {value: data.tokens.length - 1};
  const lens = el("div");
  const strip = el("div");
  const choose = (index) => {
    position.value = index;
    replace(strip, tokenStrip(data.tokens, {choose, mark: index}));
    replace(lens, lensTable(data, index));
  };
  choose(position.value);
  replace(
    root,
    el("h2", "Position"),
    strip,
    el("h2", "Logit lens"),
    el(
      "p.soft",
      "What each layer would predict after this token, if it were the last one; and the length of the residual vector.",
    ),
    lens,
    el("h2", "Attention"),
    data.attention.length ? attention(data) : el("p", "This model gives no attention weights."),
  );
}

function lensTable({lens, norms}, position) {
  const names = ["Layer", "Norm", "First", "Second", "Third"];
  const rows = lens.map((positions, layer) =>
    el(
      "tr",
      el("th", {scope: "row"}, layer === 0 ? "embedding" : `layer ${layer - 1}`),
      el("td", short(norms[layer][position])),
      positions[position].map((token) =>
        el(
          "td",
          el("span.mono", visible(token.text)),
          el("span.soft", ` ${percent(token.probability)}`),
        ),
      ),
    ),
  );
  return table("Logit lens", names, rows);
}

function attention(data) {
  const large = el("div", {"aria-live": "polite"});
  const open = (row, head) => replace(large, enlarged(data, row, head));
  // A layer without attention has no row, so the number of a row is not that of its layer.
  const nameOf = (row) => `layer ${data.attention_layers[row]}`;
  const rows = data.attention.map((heads, row) =>
    el(
      "div.heads",
      el("span.soft", nameOf(row)),
      heads.map((weights, head) =>
        el(
          "button.head",
          {
            type: "button",
            "aria-label": `${nameOf(row)}, head ${head}: ${strongest(data, weights)}`,
            onclick: () => open(row, head),
          },
          matrix(weights, SMALL),
        ),
      ),
    ),
  );
  open(0, 0);
  return el(
    "div",
    el("p.soft", "Rows look, columns are looked at. Choose a head to enlarge it."),
    scrolling("Heads", rows),
    large,
  );
}

function enlarged(data, number, head) {
  const weights = data.attention[number][head];
  const names = ["At", "looks most at", "weight"];
  const rows = weights.map((row, index) => {
    const best = row.indexOf(Math.max(...row));
    return el(
      "tr",
      el("td.mono", visible(data.tokens[index].text)),
      el("td.mono", visible(data.tokens[best].text)),
      el("td", percent(row[best])),
    );
  });
  return el(
    "figure.panel",
    el("figcaption", `Layer ${data.attention_layers[number]}, head ${head}`),
    matrix(weights, LARGE),
    el("details", el("summary", "As a table"), table("Attention", names, rows)),
  );
}

// Where a head puts the most weight that is not on the first token.
function strongest(data, weights) {
  const last = weights.at(-1);
  const best = last.indexOf(Math.max(...last));
  return `the last token looks most at “${data.tokens[best].text}”`;
}

function matrix(weights, size) {
  const canvas = el("canvas", {
    width: weights.length,
    height: weights.length,
    "aria-hidden": "true",
    style: {width: `${size}px`, height: `${size}px`},
  });
  const context = canvas.getContext("2d");
  const image = context.createImageData(weights.length, weights.length);
  weights.flat().forEach((weight, index) => {
    image.data.set([47, 111, 159, Math.round(255 * Math.sqrt(weight))], 4 * index);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}
