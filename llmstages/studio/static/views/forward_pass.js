// One forward pass of the real model, a step at a time.

import {post} from "../api.js";
import {el, replace, svg} from "../dom.js";
import {busy, candidates, hasModels, modelChoice, short, tokenStrip, valueOf} from "../parts.js";

export const title = "Forward pass";
export const key = "f";

const MEANINGS = {2: ["positions", "width"], 3: ["texts", "positions", "width"]};

export function show(root, {run, signal}) {
  if (!hasModels(root, run)) return;
  const model = modelChoice(run, null);
  const text = el("textarea", {"aria-label": "Text"}, "The cat sat on the");
  const result = el("div");
  const walk = new Walk(result, () => ({model: valueOf(model), text: text.value}), signal);
  const button = el(
    "button.primary",
    {type: "button", onclick: () => busy(button, () => walk.begin())},
    "Begin",
  );
  root.append(text, el("div.row", model, button), result);
  addEventListener("keydown", (event) => walk.keys(event), {signal});
}

class Walk {
  constructor(root, request, signal) {
    this.root = root;
    this.request = request;
    this.signal = signal;
    this.data = null;
    this.step = 0;
  }

  async begin(position) {
    this.data = await post("/api/forward", {...this.request(), position}, this.signal);
    this.step = position === undefined ? 0 : Math.min(this.step, this.data.steps.length - 1);
    this.draw();
  }

  keys(event) {
    if (!this.data || event.target.closest("input, textarea, select")) return;
    if (event.key === "ArrowRight") this.go(this.step + 1);
    if (event.key === "ArrowLeft") this.go(this.step - 1);
  }

  go(step) {
    this.step = Math.max(0, Math.min(this.data.steps.length - 1, step));
    this.draw();
  }

  draw() {
    const {tokens, steps, position, next} = this.data;
    const step = steps[this.step];
    const slider = el("input.wide", {
      type: "range",
      min: 0,
      max: steps.length - 1,
      value: this.step,
      "aria-label": "Step",
      oninput: (event) => this.go(Number(event.target.value)),
    });
    replace(
      this.root,
      el("h2", "Position"),
      tokenStrip(tokens, {choose: (index) => this.begin(index), mark: position}),
      el(
        "div.row",
        el(
          "button",
          {type: "button", disabled: this.step === 0, onclick: () => this.go(this.step - 1)},
          "← back",
        ),
        slider,
        el(
          "button",
          {
            type: "button",
            disabled: this.step === steps.length - 1,
            onclick: () => this.go(this.step + 1),
          },
          "next →",
        ),
      ),
      el(
        "section.panel",
        {"aria-live": "polite"},
        el("p.soft", `step ${this.step + 1} of ${steps.length}`),
        el("h2", step.name),
        el("p", step.about),
        el(
          "p",
          `Output ${shape(step.shape)}; ${step.parameters.toLocaleString()} parameters; `,
          `the vector at this position has the length ${short(step.norm)}.`,
        ),
        values(step),
      ),
      this.step === steps.length - 1 && [el("h2", "Softmax: what comes next"), candidates(next)],
    );
  }
}

function shape(sizes) {
  const names = MEANINGS[sizes.length];
  const parts = sizes.map((size, index) => (names ? `${names[index]} ${size}` : String(size)));
  return `[${parts.join(", ")}]`;
}

// The first numbers of the vector as bars, up for positive and down for negative ones.
function values({values: numbers, name}) {
  const highest = Math.max(...numbers.map(Math.abs), 1e-9);
  const bars = numbers.map((number, index) => {
    const height = (38 * Math.abs(number)) / highest;
    return svg(number < 0 ? "rect.bar.negative" : "rect.bar", {
      x: index * 8,
      width: 7,
      y: number < 0 ? 40 : 40 - height,
      height,
    });
  });
  return svg(
    "svg.values",
    {
      viewBox: `0 0 ${numbers.length * 8} 80`,
      role: "img",
      "aria-label": `first ${numbers.length} numbers of ${name}: ${numbers.slice(0, 8).map(short).join(", ")} ...`,
    },
    bars,
  );
}
