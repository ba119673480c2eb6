// What the model expects at each position; another candidate opens a branch.

import {post} from "../api.js";
import {el, replace, svg} from "../dom.js";
import {
  busy,
  candidates,
  hasModels,
  modelChoice,
  percent,
  short,
  tokenStrip,
  valueOf,
  visible,
} from "../parts.js";

export const title = "Next token";
export const key = "n";

const NEW_TOKENS = 16;
const MOST_BRANCHES = 12;

export function show(root, {run, parameters, signal}) {
  if (!hasModels(root, run)) return;
  root.append(new Branches(run, parameters[0], signal).view);
}

class Branches {
  constructor(run, model, signal) {
    this.signal = signal;
    this.past = []; // branches that were left, the latest first
    this.state = null; // {ids, tokens, positions}
    this.mark = 0;
    this.model = modelChoice(run, model);
    this.text = el("textarea", {"aria-label": "Text"}, "The capital of France is");
    this.chat = el("label.check", el("input", {type: "checkbox"}), " as a message in a chat");
    this.look = el(
      "button.primary",
      {type: "button", onclick: () => busy(this.look, () => this.begin())},
      "Look",
    );
    this.more = el(
      "button",
      {type: "button", disabled: true, onclick: () => busy(this.more, () => this.continue())},
      `${NEW_TOKENS} more tokens`,
    );
    this.result = el("div");
    this.branches = el("section", {"aria-label": "Branches"});
    this.view = el(
      "div",
      this.text,
      el("div.row", this.model, this.chat, this.look, this.more),
      this.result,
      this.branches,
    );
  }

  get modelName() {
    return valueOf(this.model);
  }

  begin() {
    const chat = this.chat.firstElementChild.checked;
    return this.load({text: this.text.value, chat});
  }

  async load(what) {
    this.state = await post("/api/next_token", {model: this.modelName, ...what}, this.signal);
    this.mark = this.state.tokens.length - 1;
    this.more.disabled = false;
    this.draw();
  }

  async continue() {
    const made = await post(
      "/api/branch",
      {model: this.modelName, ids: this.state.ids, count: NEW_TOKENS},
      this.signal,
    );
    await this.load({ids: made.ids});
  }

  // The text up to the marked position, and then another token.
  branch(candidate) {
    this.remember();
    const ids = [...this.state.ids.slice(0, this.mark + 1), candidate.id];
    return busy(this.more, () => this.load({ids}));
  }

  remember() {
    this.past.unshift(this.state);
    this.past.length = Math.min(this.past.length, MOST_BRANCHES);
  }

  draw() {
    const {tokens, positions} = this.state;
    const describe = (token, index) => {
      const before = positions[index - 1];
      const expected = before
        ? `, expected with ${percent(before.probability)} (rank ${before.rank})`
        : "";
      return `position ${index}, id ${token.id}${expected}`;
    };
    const choose = (index) => {
      this.mark = index;
      this.draw();
      this.result.querySelector(`[data-index="${index}"]`).focus();
    };
    replace(
      this.result,
      tokenStrip(tokens, {describe, choose, mark: this.mark}),
      entropyLine(positions, this.mark, choose),
      el("h2", `After ${quoted(tokens[this.mark])}`),
      el(
        "p.soft",
        `entropy ${short(positions[this.mark].entropy)} bits; choose a token to go on with it from here`,
      ),
      candidates(positions[this.mark].candidates, (candidate) => this.branch(candidate)),
    );
    replace(
      this.branches,
      this.past.length > 0 && [
        el("h2", "Branches that were left"),
        el(
          "ul",
          this.past.map((state) =>
            el(
              "li",
              el(
                "button",
                {
                  type: "button",
                  onclick: () => {
                    this.remember();
                    this.state = state;
                    this.mark = state.tokens.length - 1;
                    this.draw();
                  },
                },
                state.tokens
                  .map((token) => token.text)
                  .join("")
                  .slice(-80),
              ),
            ),
          ),
        ),
      ],
    );
  }
}

function quoted(token) {
  return `“${visible(token.text)}”`;
}

// One bar a position: how unsure the model is about what comes next.
function entropyLine(positions, mark, choose) {
  const step = Math.max(4, Math.min(16, 900 / positions.length));
  const highest = Math.max(...positions.map((position) => position.entropy), 1);
  const bars = positions.map((position, index) => {
    const height = (60 * position.entropy) / highest;
    return svg(index === mark ? "rect.bar.marked" : "rect.bar", {
      x: index * step,
      y: 62 - height,
      width: step - 1,
      height: height + 2,
      onclick: () => choose(index),
    });
  });
  return el(
    "figure.chart",
    el(
      "figcaption",
      "Entropy of the next token, in bits",
      el("span.soft", ` highest ${short(highest)}`),
    ),
    svg(
      "svg",
      {
        viewBox: `0 0 ${positions.length * step} 66`,
        role: "img",
        "aria-label": `entropy by position: ${positions.map((position) => position.entropy.toFixed(1)).join(", ")}`,
      },
      bars,
    ),
  );
}
