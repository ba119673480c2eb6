"""One conversation with one model: prompts from the shared renderer, streamed replies, live tools.

``llmstages chat`` shows it; nothing in here prints. A model of the hub is asked through its own
chat template, with the same care, without tools. A base model continues its input as a document.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from llmstages.convert.hf_folder import has_template
from llmstages.core.errors import StageError
from llmstages.pipeline.history import StoredArtifact, lineage
from llmstages.text import chat_format, generate
from llmstages.text.messages import Message, message
from llmstages.text.replies import parse_turn
from llmstages.text.tool_runs import Confirm, ToolRuns
from llmstages.text.tool_text import OPEN_CALL
from llmstages.train import checks

SMALL_CONTEXT = 1024  # tokens; contexts up to this hold one exchange by default
UNKNOWN_CONTEXT = 1 << 15  # tokens, where a model does not say how many it can take
BASE_TEMPERATURE = 0.8  # greedy text of a base model soon repeats itself
MAX_NEW_TOKENS = 256
MAX_TOOL_CALLS = 8  # for one message
# Among the checks of every training that renders dialogues by the chat template
TEMPLATE_CHECK = "prompt_is_prefix_of_training_row"

# show(what, text) receives a reply as it is made; what: text, call, argument, result or note.
Show = Callable[[str, str], None]


@dataclass
class ChatSession:
    """A loaded model and the conversation so far.

    Attributes:
        tools: name -> opened tool.
        is_base: it was never trained on chat.
        context: the longest sequence in tokens.
        keeps_history: earlier exchanges are part of the prompt.
        forgets: what does not fit into the context is left out; otherwise it is an error.
        system: the system message; "" for none.
        top_k, top_p: tokens that sampling chooses from, as in transformers; 0 and 1: all.
        max_new_tokens: longest reply in tokens.
        max_tool_calls: that one message may lead to.
        confirm: asked before a call is run; None allows all.
        prompt_ready: called before the first token that follows a prompt.
        after_token: called after each token; an exception that it raises ends the reply.
        around_tools: makes a context in which tools run.
        last_exchange: every token of the last prompt and reply.
        last_prompt: how many of them are of the prompt.
        new_tokens: all that were generated so far.
        ended: whether the last reply ended by itself, and not at a limit.
    """

    name: str
    model: Any
    tokenizer: Any
    tools: Mapping[str, Any]
    is_base: bool
    context: int
    keeps_history: bool
    forgets: bool = True
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    system: str = ""
    max_new_tokens: int = MAX_NEW_TOKENS
    max_tool_calls: int = MAX_TOOL_CALLS
    confirm: Confirm | None = None
    prompt_ready: Callable[[], None] | None = None
    after_token: Callable[[], None] | None = None
    around_tools: Callable[[], AbstractContextManager[None]] = nullcontext
    turns: list[dict[str, Any]] = field(default_factory=list)
    last_exchange: list[int] = field(default_factory=list)
    last_prompt: int = 0
    new_tokens: int = 0
    ended: bool = False

    def prompt_ids(self, turns: Sequence[Message]) -> list[int]:
        """The token ids that the model continues."""
        if self.is_base:
            return chat_format.document_ids(self.tokenizer, [str(turns[-1]["content"])])[0]
        dialogue: Sequence[Message] = list(turns)
        if self.system:
            dialogue = [message("system", self.system), *dialogue]
        dialogue = generate.with_schemas(self.tokenizer, dialogue, self.tools)
        return chat_format.prompt_ids(self.tokenizer, [dialogue])[0]

    def reply(self, text: str, show: Show) -> None:
        """Answer one message. The conversation also remembers a reply that is interrupted."""
        if not self.keeps_history or self.is_base:
            self.turns = []
        start = len(self.turns)  # of this exchange
        self.turns.append(message("user", text))
        runs = ToolRuns(self.tools, self.max_tool_calls, confirm=self.confirm)
        # After a tool call the model is asked again, with the result in the prompt.
        while True:
            prompt = self._fit(start, show)
            start = min(start, len(self.turns) - 1)
            answer, ended = self._generate(prompt, show)
            self.turns += [dict(turn) for turn in answer]
            calls = [turn for turn in answer if turn["tool"]]
            if not calls or not ended:
                return
            if not self._run_tools(calls, runs, show):
                return

    def next_turn(self, turns: Sequence[Message], show: Show) -> list[Message]:
        """What the model says next, a text or calls; no call is run."""
        self.turns = [dict(turn) for turn in turns]
        answer, _ = self._generate(self._fit(len(turns) - 1, show), show)
        return answer

    def _run_tools(self, calls: Sequence[Message], runs: ToolRuns, show: Show) -> bool:
        """Run the tools that were called, in order; returns False if the reply ends here."""
        unknown = [call["tool"] for call in calls if call["tool"] not in self.tools]
        if unknown:
            reason = "there is no such tool" if self.tools else "this model comes without tools"
            show("note", f"it calls {unknown[0]}, but {reason}")
            return False
        with self.around_tools():
            results = runs.run(calls, self.turns[: -len(calls)])
        for result in results:
            show("result", str(result["content"]))
            self.turns.append(dict(result))
        if not results:
            show("note", f"stopped after {runs.spent}")
        return bool(results)

    def _generate(self, prompt: list[int], show: Show) -> tuple[list[Message], bool]:
        """(the turns of the answer, whether it ended by itself)."""
        new_ids: list[int] = []
        self.last_exchange = prompt
        self.last_prompt = len(prompt)
        max_new_tokens = min(self.max_new_tokens, self.context - len(prompt))
        if self.prompt_ready:
            self.prompt_ready()
        try:
            stream(self, prompt, new_ids, show, max_new_tokens)
        finally:
            # Also what a reply had when Ctrl-C stopped it can be looked at.
            self.last_exchange = [*prompt, *new_ids]
            self.new_tokens += len(new_ids)
        if self.is_base:
            self.ended = len(new_ids) < max_new_tokens
            return [message("assistant", chat_format.decode(self.tokenizer, new_ids))], True
        turns, is_whole = parse_turn(self.tokenizer, new_ids)
        # A model may also stop in the middle of a call.
        self.ended = is_whole or len(new_ids) < max_new_tokens
        return turns, is_whole

    def _fit(self, start: int, show: Show) -> list[int]:
        """The prompt, shortened until the context has room for an answer.

        The oldest exchanges before ``start`` are dropped first. ``show`` gets a note of what is
        left out.

        Raises:
            StageError: it does not fit, and nothing may be left out.
        """
        room = min(self.max_new_tokens, max(self.context // 4, 1))
        limit = self.context - room
        dropped = 0
        ids = self.prompt_ids(self.turns)
        if len(ids) > limit and not self.forgets:
            raise StageError(
                f"the conversation has {len(ids)} tokens; the context of {self.context} tokens "
                f"takes {limit} beside {room} for the answer. Send fewer messages or shorter ones"
            )
        while len(ids) > limit and dropped < start:
            dropped += 1
            ids = self.prompt_ids(self.turns[dropped:])
        # A prompt never begins in the middle of an exchange.
        while 0 < dropped < start and self.turns[dropped]["role"] != "user":
            dropped += 1
            ids = self.prompt_ids(self.turns[dropped:])
        if dropped:
            del self.turns[:dropped]
            show(
                "note",
                f"the first {dropped} messages no longer fit into {self.context} tokens "
                "and are forgotten",
            )
        if len(ids) > limit:
            cut = len(ids) - limit
            ids = [ids[0], *ids[cut + 1 :]]  # the BOS token stays
            show("note", f"too long for {self.context} tokens: the first {cut} are left out")
        return ids


class _Streamer:
    """Shows tokens as generate() hands them over, as soon as they make whole characters.

    It has the methods of a BaseStreamer of transformers, which calls nothing else.
    """

    def __init__(self, session: ChatSession, new_ids: list[int], show: Show) -> None:
        self.tokenizer = session.tokenizer
        self.new_ids = new_ids
        self.show = show
        self.after_token = session.after_token
        self.silent = set(session.tokenizer.all_special_ids)
        self.tool_names: dict[int, str] = {}
        if not session.is_base:
            calls = chat_format.control_tokens(session.tokenizer).calls
            for name, (first, _) in calls.items():
                self.tool_names[first] = name or "tool"
        self.what = "text"
        self.part: list[int] = []
        self.shown = ""
        self.awaits_prompt = True

    def put(self, value: Any) -> None:
        """Take the prompt at first, and then the next token."""
        if self.awaits_prompt:
            self.awaits_prompt = False
            return
        for token in value.flatten().tolist():
            self.new_ids.append(token)
            if token in self.tool_names:
                self._begin_call(self.tool_names[token])
            elif token not in self.silent:
                self._extend(token)
        if self.after_token:
            self.after_token()

    def _begin_call(self, name: str) -> None:
        self.part.clear()
        self.shown = ""
        self.what = "argument"
        self.show("call", name)

    def _extend(self, token: int) -> None:
        self.part.append(token)
        text = chat_format.decode(self.tokenizer, self.part)
        if text.endswith("\ufffd"):
            return  # a part of a character: wait for the rest
        if self.what == "text" and OPEN_CALL in text:
            # Models from elsewhere write calls as text.
            before = text[: text.index(OPEN_CALL)]
            self.show("text", before[len(self.shown) :])
            self.show("call", "tool")
            self.what = "argument"
            self.shown = before + OPEN_CALL
        if self.what == "text" and _ends_with_a_beginning(text, OPEN_CALL):
            return  # it may become a call: wait for the rest
        self.show(self.what, text[len(self.shown) :])
        self.shown = text

    def end(self) -> None:
        """Show what was held back because it might have become a call."""
        text = chat_format.decode(self.tokenizer, self.part)
        if self.what == "text" and len(text) > len(self.shown):
            self.show("text", text[len(self.shown) :])


def _ends_with_a_beginning(text: str, mark: str) -> bool:
    """Whether a text ends with the first characters of a mark."""
    return any(text.endswith(mark[:length]) for length in range(1, len(mark)))


def stream(
    session: ChatSession,
    ids: Sequence[int],
    new_ids: list[int],
    show: Show,
    max_new_tokens: int,
) -> None:
    """Generate into ``new_ids`` and show the text meanwhile."""
    import torch

    prompt = torch.tensor([list(ids)], device=session.model.device)
    settings = generate.settings(session.model, session.tokenizer, session.temperature)
    if session.temperature:
        settings.update(top_k=session.top_k, top_p=session.top_p)
    with torch.no_grad():
        session.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=max(1, max_new_tokens),
            streamer=_Streamer(session, new_ids, show),
            **settings,
        )


def open_session(artifact: StoredArtifact, keeps_history: bool | None = None) -> ChatSession:
    """Load a model with the tools that it was made with.

    Args:
        artifact: a model.
        keeps_history: None: if the context is longer than SMALL_CONTEXT.

    Raises:
        StageError: the artifact is not a causal language model.
    """
    if not (artifact.path / "config.json").exists():
        raise StageError(f"{artifact.name} is not a model: {artifact.path} contains no config.json")
    if artifact.kind == "reward_model":
        raise StageError(
            f"{artifact.name} is a reward model: it gives scores and does not talk. "
            "Choose a step that made a model"
        )
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(artifact.path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(artifact.path, dtype="auto")
    model = model.eval().to(device)
    context = int(getattr(model.config, "max_position_embeddings", None) or UNKNOWN_CONTEXT)
    if keeps_history is None:
        keeps_history = context > SMALL_CONTEXT
    # Tools are opened only for a model that can call them: an index may be large.
    session = ChatSession(
        artifact.name,
        model,
        tokenizer,
        tools={},
        is_base=is_base_model(artifact),
        context=context,
        keeps_history=keeps_history,
    )
    if session.is_base:
        session.temperature = BASE_TEMPERATURE
    else:
        session.tools = open_tools(artifact)
    return session


def is_base_model(artifact: StoredArtifact) -> bool:
    """Whether a model was never trained on chat, as far as its folder and its lineage show.

    A chat template alone proves nothing: our tokenizers have one before anything is trained. A
    model is trained on chat if a training step in its lineage checked its rows against the
    template, or took dialogues that are rendered by it. A model from elsewhere left no checks; for
    it the chat template of its tokenizer decides.
    """
    return not any(_shows_chat(step) for step in lineage(artifact))


def _shows_chat(step: StoredArtifact) -> bool:
    """Whether a step in the lineage of a model shows that the model was trained on chat."""
    checks_file = step.path / checks.FILE
    if checks_file.exists():
        ids = [check["id"] for check in json.loads(checks_file.read_text(encoding="utf-8"))]
        return TEMPLATE_CHECK in ids or _takes_chat(step)
    is_foreign_model = step.kind == "model" or not step.record
    return is_foreign_model and has_template(step.path)


def _takes_chat(step: StoredArtifact) -> bool:
    """Whether a step was trained on dialogues that are rendered by the chat template."""
    from llmstages.data import tables

    names = (step.record.get("inputs") or {}).get("dialogues") or []
    for source in lineage(step):
        table_folder = source.path / "data"
        if source.name not in names or source.kind != "dialogues" or not table_folder.exists():
            continue
        table = tables.load(table_folder)
        if "render" not in table.column_names or set(table["render"]) != {"plain"}:
            return True
    return False


def open_tools(artifact: StoredArtifact) -> dict[str, Any]:
    """The tools of the nearest tools artifact in a model's lineage; empty if there is none."""
    for step in lineage(artifact):
        if (step.path / "tools.json").exists():
            return generate.open_tools(step.path)
    return {}
