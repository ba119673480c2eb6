// Write and rate dialogues by a guideline; they become a file that dialogues=files reads.

import {get, post, stream} from "../api.js";
import {el, labeled, replace, select} from "../dom.js";
import {busy, modelChoice, valueOf} from "../parts.js";

export const title = "Dialogues";
export const key = "d";

export async function show(root, {run, signal}) {
  const editor = new Editor(run, signal);
  root.append(editor.view);
  await editor.reload();
}

class Editor {
  constructor(run, signal) {
    this.signal = signal;
    this.id = null; // of the dialogue that is edited
    this.model = run.models.length ? modelChoice(run, null, null, "Drafts by") : null;
    this.turns = el("div");
    this.rating = labeled("Rating, 1 to 5", select(["", "1", "2", "3", "4", "5"], ""));
    this.save = el(
      "button.primary",
      {type: "button", onclick: () => busy(this.save, () => this.store())},
      "Save",
    );
    this.list = el("section", {"aria-label": "Saved dialogues"});
    this.guideline = el("details", el("summary", "Guideline"));
    const draft = el(
      "button",
      {type: "button", onclick: () => busy(draft, () => this.draft())},
      "Draft the answer",
    );
    const more = el(
      "button",
      {type: "button", onclick: () => this.addExchange()},
      "One more exchange",
    );
    const fresh = el("button", {type: "button", onclick: () => this.open(null)}, "New dialogue");
    this.view = el(
      "div",
      this.guideline,
      this.turns,
      el("div.row", this.model, this.model && draft, more, this.rating, this.save, fresh),
      this.list,
    );
    this.open(null);
  }

  open(dialogue) {
    this.id = dialogue?.id ?? null;
    replace(this.turns);
    for (const turn of dialogue?.messages ?? [
      {role: "user", content: ""},
      {role: "assistant", content: ""},
    ]) {
      this.addTurn(turn);
    }
    this.rating.querySelector("select").value = dialogue?.rating ? String(dialogue.rating) : "";
  }

  addTurn({role, content}) {
    this.turns.append(labeled(role, el("textarea", {data: {role}}, content)));
  }

  addExchange() {
    this.addTurn({role: "user", content: ""});
    this.addTurn({role: "assistant", content: ""});
  }

  messages() {
    return [...this.turns.querySelectorAll("textarea")].map((area) => ({
      role: area.dataset.role,
      content: area.value,
    }));
  }

  // The model answers the last message of the user; the person edits what it says.
  async draft() {
    const areas = [...this.turns.querySelectorAll("textarea")];
    const answer = areas.at(-1);
    const turns = this.messages()
      .slice(0, -1)
      .filter((turn) => turn.role !== "system")
      .map((turn) => ({...turn, tool: ""}));
    answer.value = "";
    for await (const event of stream(
      "/api/chat",
      {model: valueOf(this.model), turns},
      this.signal,
    )) {
      if (event.what === "text") answer.value += event.text;
    }
  }

  async store() {
    const rating = valueOf(this.rating);
    const body = {messages: this.messages(), rating: rating ? Number(rating) : null};
    if (this.id) body.id = this.id;
    await post("/api/dialogues", body, this.signal);
    this.open(null);
    await this.reload();
  }

  async reload() {
    const {dialogues, guideline, file} = await get("/api/dialogues", this.signal);
    replace(this.guideline, el("summary", "Guideline"), el("pre", {tabindex: 0}, guideline));
    const items = dialogues.map((dialogue) =>
      el(
        "li",
        el("span", dialogue.messages.find((turn) => turn.role === "user").content.slice(0, 80)),
        dialogue.rating ? ` (${dialogue.rating} of 5) ` : " ",
        el("button.small", {type: "button", onclick: () => this.open(dialogue)}, "edit"),
        el("button.small", {type: "button", onclick: () => this.remove(dialogue.id)}, "delete"),
      ),
    );
    replace(
      this.list,
      el("h2", `${dialogues.length} saved`),
      el("ul", items),
      dialogues.length > 0 &&
        el("p.soft", "To train on them: ", el("code", `dialogues=files dialogues.path=${file}`)),
    );
  }

  async remove(id) {
    await post("/api/dialogues/delete", {id}, this.signal);
    await this.reload();
  }
}
