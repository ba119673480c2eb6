"""One conversation with one model: prompts from the shared renderer, replies token by token, tools run live.

``llmstages chat`` shows it; nothing in here prints. A model of the hub is asked through its own chat template,
with the same care, without tools. A base model continues what it is given as a document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages.core.errors import StageError
from llmstages.pipeline.history import Made, lineage
from llmstages.text import chat_format, generate
from llmstages.text.messages import message

SHORT = 1024  # contexts up to this hold one exchange by default
Show = Callable[[str, str], None]  # (what: text | call | argument | result | note, text)


@dataclass
class Talk:
    """A loaded model and what was said so far."""

    name: str
    model: Any
    tokenizer: Any
    tools: Mapping[str, Any]
    base: bool
    context: int
    history: bool
    temperature: float = 0.0
    system: str = ""
    turns: list[dict[str, Any]] = field(default_factory=list)
    last: list[int] = field(default_factory=list)  # every token of the last exchange

    def prompt(self, turns: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids to continue."""
        if self.base:
            return chat_format.document_ids(self.tokenizer, [str(turns[-1]["content"])])[0]
        told = [message("system", self.system)] if self.system else []
        return chat_format.prompt_ids(self.tokenizer, [[*told, *turns]])[0]

    def say(self, text: str, show: Show, most: int = 256, rounds: int = 4) -> None:
        """Answer one message; ``show`` gets the reply as it is made. What was said is remembered also when it is stopped."""
        if not self.history or self.base:
            self.turns = []
        start = len(self.turns)
        self.turns.append(message("user", text))
        for _ in range(rounds):
            ids = self._fit(start, show, room=min(most, max(self.context // 4, 1)))
            start = min(start, len(self.turns) - 1)
            made: list[int] = []
            self.last = ids
            try:
                stream(self, ids, made, show, min(most, self.context - len(ids)))
            finally:
                self.last = [*ids, *made]
            said, ended = self._parse(made)
            self.turns.append(dict(said))
            if not said["tool"] or not ended:
                return
            if said["tool"] not in self.tools:
                show(
                    "note",
                    f"it calls {said['tool']}, but {'there is no such tool' if self.tools else 'this model comes without tools'}",
                )
                return
            result = generate.call(self.tools, said["tool"], str(said["content"]))
            show("result", result)
            self.turns.append(message("tool", result, said["tool"]))
        show("note", f"stopped after {rounds} tool calls")

    def _parse(self, made: Sequence[int]) -> tuple[Mapping[str, Any], bool]:
        if not self.base:
            return chat_format.parse_reply(self.tokenizer, made)
        return message("assistant", chat_format.decode(self.tokenizer, made)), True

    def _fit(self, start: int, show: Show, room: int) -> list[int]:
        """The prompt, with the oldest exchanges left out until ``room`` tokens are free; what is cut is said."""
        ids, dropped = self.prompt(self.turns), 0
        while len(ids) > self.context - room and start - dropped > 0:
            dropped += 1
            ids = self.prompt(self.turns[dropped:])
        while (
            0 < dropped < start and self.turns[dropped]["role"] != "user"
        ):  # never begin in the middle of an exchange
            dropped += 1
            ids = self.prompt(self.turns[dropped:])
        if dropped:
            del self.turns[:dropped]
            show(
                "note",
                f"the first {dropped} messages no longer fit into {self.context} tokens and are forgotten",
            )
        if len(ids) > self.context - room:
            cut = len(ids) - (self.context - room)
            ids = [ids[0], *ids[cut + 1 :]]
            show("note", f"too long for {self.context} tokens: the first {cut} are left out")
        return ids


def stream(talk: Talk, ids: Sequence[int], made: list[int], show: Show, most: int) -> None:
    """Generate into ``made``, showing text as soon as it is whole characters."""
    import torch
    from transformers.generation.streamers import BaseStreamer

    opening = (
        {}
        if talk.base
        else {
            first: name or "tool"
            for name, (first, _) in chat_format.control(talk.tokenizer).calls.items()
        }
    )
    quiet = set(talk.tokenizer.all_special_ids)
    part: list[int] = []
    state = {"shown": "", "what": "text", "prompt": True}

    class Shower(BaseStreamer):
        def put(self, value: Any) -> None:
            if state["prompt"]:  # generate() hands over the prompt first
                state["prompt"] = False
                return
            for token in value.flatten().tolist():
                made.append(token)
                if token in opening:
                    part.clear()
                    state.update(shown="", what="argument")
                    show("call", opening[token])
                elif token not in quiet:
                    part.append(token)
                    text = chat_format.decode(talk.tokenizer, part)
                    if not text.endswith("\ufffd"):  # half a character: wait for the rest
                        show(state["what"], text[len(state["shown"]) :])
                        state["shown"] = text

        def end(self) -> None: ...

    prompt = torch.tensor([list(ids)], device=talk.model.device)
    with torch.no_grad():
        talk.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=max(1, most),
            streamer=Shower(),
            **generate.settings(talk.model, talk.tokenizer, talk.temperature),
        )


def open_talk(made: Made, history: bool | None = None) -> Talk:
    """Load a model with the tools it was made with. history None: kept where the context is longer than SHORT."""
    if not (made.path / "config.json").exists():
        raise StageError(f"{made.name} is no model: {made.path} holds no config.json")
    if made.kind == "reward_model":
        raise StageError(
            f"{made.name} is a reward model: it gives scores, it does not talk. Choose a step that made a model"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made.path)
    model = (
        AutoModelForCausalLM.from_pretrained(made.path, dtype="auto")
        .eval()
        .to("cuda" if torch.cuda.is_available() else "cpu")
    )
    base = _is_base(made) if made.record else not tokenizer.chat_template
    context = int(getattr(model.config, "max_position_embeddings", None) or 1 << 15)
    return Talk(
        made.name,
        model,
        tokenizer,
        {} if base else open_tools(made),
        base,
        context,
        context > SHORT if history is None else history,
        temperature=0.8 if base else 0.0,
    )


def _is_base(made: Made) -> bool:
    """Whether no step of its making was chat training."""
    models = [one for one in lineage(made) if one.kind == "model"]
    return (
        bool(models)
        and all(one.stage.startswith("pretrain.") for one in models)
        and not any(_chatted(one) for one in models)
    )


def _chatted(made: Made) -> bool:
    """Whether a pretraining step took dialogues that are rendered as chat (midtraining)."""
    from llmstages.data import tables

    names = (made.record.get("inputs") or {}).get("dialogues") or []
    for one in lineage(made):
        if one.name in names and one.kind == "dialogues" and (one.path / "data").exists():
            table = tables.load(one.path / "data")
            if "render" not in table.column_names or set(table["render"]) != {"plain"}:
                return True
    return False


def open_tools(made: Made) -> dict[str, Any]:
    """The tools of the nearest tools artifact in the model's lineage, opened; empty where there is none."""
    return next(
        (
            generate.open_tools(one.path)
            for one in lineage(made)
            if (one.path / "tools.json").exists()
        ),
        {},
    )
