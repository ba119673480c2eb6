// What several views show: tokens, charts, choices of a model, probabilities.

import {el, labeled, select, svg} from "./dom.js";

// A text with line ends and tabs visible, so that no token looks empty.
export function visible(text) {
  if (/^ *$/.test(text)) return text.replaceAll(" ", "␣") || "∅";
  return text.replaceAll("\n", "↵\n").replaceAll("\t", "⇥");
}

// Tokens beside each other; `describe(token, index)` gives the text of the tooltip.
// `choose(index)`, if given, makes each token a button.
export function tokenStrip(tokens, {describe = tokenFacts, choose = null, mark = null} = {}) {
  return el(
    "div.tokens",
    tokens.map((token, index) => {
      const classes = ["token", `t${index % 6}`];
      if (token.kind === "control") classes.push("control");
      if (token.supervised) classes.push("supervised");
      const properties = {title: describe(token, index), data: {index}};
      if (!choose) return el(`span.${classes.join(".")}`, properties, visible(token.text));
      const button = el(
        `button.${classes.join(".")}`,
        {
          ...properties,
          type: "button",
          "aria-pressed": String(mark === index),
          onclick: () => choose(index),
        },
        visible(token.text),
      );
      return button;
    }),
  );
}

export function tokenFacts(token, index) {
  const bytes = token.bytes ? `, bytes ${token.bytes}` : "";
  return `position ${index}, id ${token.id}${bytes}${token.kind === "control" ? ", control token" : ""}`;
}

// A table of tokens for those who cannot hover: text, id, bytes.
export function tokenTable(tokens) {
  const rows = tokens.map((token, index) =>
    el(
      "tr",
      el("td", String(index)),
      el("td.mono", visible(token.text), token.kind === "control" ? " (control)" : ""),
      el("td", String(token.id)),
      el("td.mono", token.bytes),
    ),
  );
  return el(
    "details",
    el("summary", `As a table (${tokens.length} tokens)`),
    table("Tokens", ["#", "Token", "Id", "Bytes"], rows),
  );
}

// A wide thing that scrolls inside itself, also by the keyboard.
export function scrolling(label, ...children) {
  return el("div.scroll", {tabindex: 0, role: "region", "aria-label": label}, children);
}

// A choice of the run's models; a name that is not one of them chooses the default.
export function modelChoice(run, wanted, onchange, label = "Model") {
  const chosen = run.models.includes(wanted) ? wanted : defaultModel(run);
  return labeled(label, select(run.models, chosen, onchange));
}

// Whether the run has models; where it has none, the view says so.
export function hasModels(root, run) {
  if (!run.models.length) {
    root.append(el("p", "There is no model yet. Run `llmstages run`, and come back."));
  }
  return run.models.length > 0;
}

// A box for each name, of which those that `isChecked` are chosen at first.
export function checkBoxes(names, isChecked, onchange = () => {}) {
  return names.map((name, index) =>
    el(
      "label.check",
      el("input", {type: "checkbox", value: name, checked: isChecked(name, index), onchange}),
      ` ${name}`,
    ),
  );
}

export function checkedOf(boxes) {
  const inputs = boxes.map((box) => box.firstElementChild);
  return inputs.filter((input) => input.checked).map((input) => input.value);
}

// A table that scrolls inside itself; `rows` are its rows.
export function table(label, names, rows) {
  const heads = names.map((name) => el("th", {scope: "col"}, name));
  return scrolling(label, el("table", el("thead", el("tr", heads)), el("tbody", rows)));
}

export function defaultModel(run) {
  return run.models.includes(run.chat) ? run.chat : run.models.at(-1);
}

export function numberField(label, value, {min = 0, max = null, step = "any"} = {}) {
  return labeled(label, el("input.short", {type: "number", value, min, max, step}));
}

export function valueOf(field) {
  return field.querySelector("input, select, textarea").value;
}

// One curve with its smallest and largest value; points are [x, y].
export function chart(name, points, width = 320, height = 120) {
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const place = ([x, y]) =>
    [
      30 + ((width - 40) * (x - left)) / (right - left || 1),
      height - 20 - ((height - 34) * (y - low)) / (high - low || 1),
    ]
      .map((number) => number.toFixed(1))
      .join(",");
  const last = ys.at(-1);
  return el(
    "figure.chart",
    el("figcaption", name, el("span.soft", ` ${short(ys[0])} → ${short(last)}`)),
    svg(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "aria-label": `${name}: from ${short(ys[0])} to ${short(last)}, lowest ${short(low)}, highest ${short(high)}`,
      },
      svg("line.grid", {x1: 30, x2: width - 10, y1: height - 20, y2: height - 20}),
      svg("polyline.curve", {points: points.map(place).join(" ")}),
      svg("text", {x: 2, y: 18}, short(high)),
      svg("text", {x: 2, y: height - 22}, short(low)),
      svg("text", {x: width - 10, y: height - 5, "text-anchor": "end"}, short(right)),
    ),
  );
}

export function short(number) {
  if (number === null || number === undefined) return "";
  if (Number.isInteger(number)) return String(number);
  return Math.abs(number) >= 1000 ? number.toFixed(0) : String(Number(number.toPrecision(4)));
}

export function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;
}

// A list of candidates with bars; `choose(candidate)`, if given, makes them buttons.
export function candidates(list, choose = null) {
  return el(
    "ul.candidates",
    list.map((candidate) => {
      const label = [
        el("span.mono", visible(candidate.text)),
        el("span.meter", el("span", {style: {width: `${100 * candidate.probability}%`}})),
        el("span.soft", percent(candidate.probability)),
      ];
      const item = choose
        ? el("button", {type: "button", onclick: () => choose(candidate)}, label)
        : el("div", label);
      return el("li", item);
    }),
  );
}

// Runs `work` while the button is disabled; an error is shown beside it.
export async function busy(button, work) {
  const place = button.parentElement;
  place.querySelectorAll(".error").forEach((old) => old.remove());
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    if (error.name !== "AbortError") place.append(el("p.error", {role: "alert"}, error.message));
  } finally {
    button.disabled = false;
  }
}

// A file for the user, made in the page.
export function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], {type: "application/jsonl"}));
  const link = el("a", {href: address, download: name});
  link.click();
  URL.revokeObjectURL(address);
}
