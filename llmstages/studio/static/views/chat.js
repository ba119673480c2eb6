// Talk to any model of the run: streamed, tools visible as they run, tokens of the last exchange.

import {stream} from "../api.js";
import {el, labeled, replace} from "../dom.js";
import {
  busy,
  download,
  hasModels,
  modelChoice,
  numberField,
  tokenStrip,
  tokenTable,
  valueOf,
} from "../parts.js";

export const title = "Chat";
export const key = "c";

export function show(root, {run, parameters, signal}) {
  if (!hasModels(root, run)) return;
  const talk = new Talk(run, parameters[0], signal);
  root.append(talk.controls, talk.list, talk.form, talk.tokens);
}

class Talk {
  constructor(run, model, signal) {
    this.turns = []; // {role, content, tool}
    this.signal = signal;
    this.stopping = null;
    this.model = modelChoice(run, model, () => this.reset());
    this.temperature = numberField("Temperature", 0, {max: 10});
    this.topK = numberField("Top k", 0, {step: 1});
    this.topP = numberField("Top p", 1, {min: 0.001, max: 1});
    this.system = labeled("System message", el("input", {type: "text"}));
    this.controls = el("div.row", this.model, this.temperature, this.topK, this.topP, this.system);
    this.list = el("div.talk", {role: "log", "aria-label": "Conversation"});
    this.tokens = el("section", {"aria-label": "Tokens"});
    this.form = this.makeForm();
    const escape = (event) => event.key === "Escape" && this.stopping?.abort();
    addEventListener("keydown", escape, {signal});
  }

  makeForm() {
    const text = el("textarea", {
      id: "message",
      placeholder: "Write a message. Enter sends it.",
      "aria-label": "Message",
      onkeydown: (event) => this.keys(event),
    });
    this.text = text;
    this.send = el("button.primary", {type: "submit"}, "Send");
    this.stop = el(
      "button",
      {type: "button", disabled: true, onclick: () => this.stopping?.abort()},
      "Stop",
    );
    this.again = el("button", {type: "button", onclick: () => this.regenerate()}, "Again");
    const save = el("button", {type: "button", onclick: () => this.save()}, "Save as dialogue");
    const clear = el("button", {type: "button", onclick: () => this.reset()}, "New");
    const submit = (event) => {
      event.preventDefault();
      const message = text.value.trim();
      if (!message || this.stopping) return;
      text.value = "";
      this.ask(message);
    };
    return el(
      "form",
      {onsubmit: submit},
      text,
      el("div.row", this.send, this.stop, this.again, clear, save),
    );
  }

  keys(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      event.target.form.requestSubmit();
    }
  }

  reset() {
    this.stopping?.abort();
    this.turns = [];
    replace(this.tokens);
    this.draw();
  }

  // The last question asked once more.
  regenerate() {
    const place = this.turns.findLastIndex((turn) => turn.role === "user");
    if (place < 0 || this.stopping) return;
    const question = this.turns[place].content;
    this.turns = this.turns.slice(0, place);
    this.ask(question);
  }

  // An earlier message comes back into the text field; what followed it is dropped.
  edit(place) {
    if (this.stopping) return;
    this.text.value = this.turns[place].content;
    this.turns = this.turns.slice(0, place);
    this.draw();
    this.text.focus();
  }

  save() {
    const system = valueOf(this.system);
    const messages = system ? [{role: "system", content: system}, ...this.turns] : this.turns;
    download("dialogues.jsonl", JSON.stringify({messages}) + "\n");
  }

  async ask(content) {
    this.turns.push({role: "user", content, tool: ""});
    this.draw();
    const reply = el("div.turn.assistant", {"aria-busy": "true"});
    this.list.append(reply);
    this.stopping = new AbortController();
    this.signal.addEventListener("abort", () => this.stopping?.abort());
    this.stop.disabled = false;
    await busy(this.send, () => this.receive(reply));
    this.stop.disabled = true;
    this.stopping = null;
    reply.removeAttribute("aria-busy");
  }

  async receive(reply) {
    const body = {
      model: valueOf(this.model),
      turns: this.turns,
      system: valueOf(this.system),
      temperature: Number(valueOf(this.temperature)),
      top_k: Number(valueOf(this.topK)),
      top_p: Number(valueOf(this.topP)),
    };
    let done = null;
    try {
      for await (const event of stream("/api/chat", body, this.stopping.signal)) {
        if (event.what === "done") done = event;
        else addPart(reply, event);
      }
    } finally {
      // A reply that was stopped stays as far as it got.
      this.turns.push(...(done?.turns ?? turnsOfParts(reply)));
    }
    this.draw();
    this.showTokens(done.tokens);
  }

  showTokens(tokens) {
    const trained = tokens.filter((token) => token.supervised).length;
    replace(
      this.tokens,
      el("h2", "The exchange as tokens"),
      el(
        "p.soft",
        `${tokens.length} tokens; the ${trained} underlined ones are the model's own, `,
        "on which training would put its loss. Control tokens are dark.",
      ),
      tokenStrip(tokens),
      tokenTable(tokens),
    );
  }

  draw() {
    replace(
      this.list,
      this.turns.map((turn, place) => turnOf(turn, () => this.edit(place))),
    );
    this.list.scrollTop = this.list.scrollHeight;
  }
}

// A part of a reply as it comes: text, a call with its argument, a result, a note.
function addPart(reply, {what, text}) {
  if (what === "model") return;
  const last = reply.lastElementChild;
  if (last?.dataset.what === what && what !== "call") {
    last.append(text);
    return;
  }
  const names = {call: "calls ", result: "result: ", note: "note: "};
  reply.append(el(`span.${what}`, {data: {what}}, names[what] ? el("b", names[what]) : null, text));
}

// The turns of a reply that was stopped, by what is shown of it.
function turnsOfParts(reply) {
  const turns = [];
  let tool = "";
  for (const part of reply.children) {
    const text = part.lastChild?.textContent ?? "";
    if (part.dataset.what === "call") tool = text;
    if (part.dataset.what === "argument") turns.push({role: "assistant", content: text, tool});
    if (part.dataset.what === "result") turns.push({role: "tool", content: text, tool});
    if (part.dataset.what === "text") {
      turns.push({role: "assistant", content: part.textContent, tool: ""});
    }
  }
  const answered = turns.at(-1)?.role === "assistant" && !turns.at(-1).tool;
  return answered ? turns : [...turns, {role: "assistant", content: "", tool: ""}];
}

function turnOf(turn, edit) {
  const isCall = turn.role === "assistant" && turn.tool;
  const label =
    turn.role === "tool" ? `result of ${turn.tool}` : isCall ? `calls ${turn.tool}` : turn.role;
  const kind = turn.role === "tool" ? "result" : isCall ? "call" : turn.role;
  return el(
    `div.turn.${kind}`,
    el("b.who", label),
    el("span.text", turn.content),
    turn.role === "user" &&
      el(
        "button.small",
        {type: "button", onclick: edit, "aria-label": `Edit: ${turn.content}`},
        "edit",
      ),
  );
}
