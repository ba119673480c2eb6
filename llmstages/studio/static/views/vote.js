// Two answers without names: which one is better? Votes become preference pairs.

import {get, post, stream} from "../api.js";
import {el, replace} from "../dom.js";
import {busy, checkBoxes, checkedOf, numberField, percent, table, valueOf} from "../parts.js";

export const title = "Vote";
export const key = "v";

const KEYS = {1: "first", 2: "second", 0: "tie"};
const LABELS = {first: "The first (1)", second: "The second (2)", tie: "A tie (0)"};

export async function show(root, {run, signal}) {
  const booth = new Booth(run, signal);
  root.append(booth.form, booth.answers, booth.buttons, booth.after, booth.standing);
  addEventListener("keydown", (event) => booth.keys(event), {signal});
  booth.showStanding(await get("/api/votes", signal));
}

class Booth {
  constructor(run, signal) {
    this.signal = signal;
    this.pair = null;
    this.boxes = checkBoxes(run.models, () => true);
    this.prompt = el("textarea", {
      "aria-label": "Prompt",
      placeholder: "A prompt for two of the models",
    });
    this.temperature = numberField("Temperature", 0.8, {max: 10});
    this.draw = el(
      "button.primary",
      {type: "button", onclick: () => busy(this.draw, () => this.next())},
      "Two answers",
    );
    const drawPrompt = async () => {
      this.prompt.value = (await get("/api/prompt", this.signal)).prompt;
    };
    this.suggest = el(
      "button",
      {type: "button", onclick: () => busy(this.suggest, drawPrompt)},
      "A prompt of the run",
    );
    this.form = el(
      "div",
      el(
        "details",
        el("summary", "Models that take part"),
        el("fieldset.row", el("legend.hidden", "Models"), this.boxes),
      ),
      this.prompt,
      el("div.row", this.temperature, this.suggest, this.draw),
    );
    this.answers = el("div.columns");
    this.buttons = el("div.row");
    this.after = el("p", {"aria-live": "polite"});
    this.standing = el("section", {"aria-label": "Standing"});
  }

  async next() {
    this.pair = null;
    replace(this.buttons);
    replace(this.after);
    const cells = {};
    replace(
      this.answers,
      ["first", "second"].map((side) => {
        cells[side] = el("div.turn.assistant");
        return el("section.panel", el("h2", side === "first" ? "First" : "Second"), cells[side]);
      }),
    );
    const models = checkedOf(this.boxes);
    const body = {
      prompt: this.prompt.value,
      models,
      temperature: Number(valueOf(this.temperature)),
    };
    for await (const event of stream("/api/pair", body, this.signal)) {
      if (event.what === "text") cells[event.side].append(event.text);
      if (event.what === "pair") this.open(event);
    }
  }

  open({pair, same}) {
    this.pair = pair;
    replace(
      this.buttons,
      Object.entries(LABELS).map(([choice, label]) =>
        el(
          "button",
          {
            type: "button",
            onclick: (event) => busy(event.target, () => this.vote(choice)),
          },
          label,
        ),
      ),
      el("button", {type: "button", onclick: () => this.skip()}, "Skip (s)"),
    );
    if (same) replace(this.after, "Both said the same.");
  }

  skip() {
    this.pair = null;
    replace(this.buttons);
    replace(this.answers);
  }

  async vote(choice) {
    if (!this.pair) return;
    const pair = this.pair;
    this.pair = null; // one vote for a pair, however fast the keys are
    let result;
    try {
      result = await post("/api/vote", {pair, choice}, this.signal);
    } catch (error) {
      this.pair = pair;
      throw error;
    }
    replace(this.buttons);
    replace(
      this.after,
      `First: ${result.models.first}. Second: ${result.models.second}. Your vote is stored.`,
    );
    this.showStanding(result);
  }

  keys(event) {
    if (event.target.closest("input, textarea, select") || !this.pair) return;
    if (event.key in KEYS) {
      const button = this.buttons.children[Object.keys(LABELS).indexOf(KEYS[event.key])];
      busy(button, () => this.vote(KEYS[event.key]));
    }
    if (event.key === "s") this.skip();
  }

  showStanding({votes, standing, file}) {
    if (!votes) {
      replace(this.standing, el("p.soft", "No votes yet."));
      return;
    }
    const names = ["Model", "Votes", "Share won", "95 % interval"];
    const rows = standing.map((row) =>
      el(
        "tr",
        el("th", {scope: "row"}, row.model),
        el("td", String(row.votes)),
        el("td", percent(row.share)),
        el("td", row.interval.map(percent).join(" to ")),
      ),
    );
    replace(
      this.standing,
      el("h2", `${votes} votes`),
      table("Standing", names, rows),
      el(
        "p.soft",
        "To train a reward model on them: ",
        el("code", `preferences=files preferences.path=${file}`),
      ),
    );
  }
}
