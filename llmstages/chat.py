"""One renderer for training, evaluation, RL and chat: messages -> token ids and the supervised mask.

Control tokens are placed by id; contents are encoded with special tokens switched off, so that no text of a user, a
page or a tool can ever become a control token (the flaw of rendering to one string first: transformers#29279).
A tool call sits inside the assistant's turn: ``<|im_start|>assistant<|im_sep|><SEARCH_START>query<SEARCH_END>``
``<RESULT_START>text<RESULT_END>answer<|im_end|>``; calls and answers are supervised, results are not.
``template`` says the same in Jinja, for other programs that load the tokenizer; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmstages import encoding, packing
from llmstages.stage import StageError
from llmstages.tables import message

PAD, BOS, START, SEP, END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"
RESULT = ("<RESULT_START>", "<RESULT_END>")
CALLS = {"search": ("<SEARCH_START>", "<SEARCH_END>"), "calculator": ("<CALC_START>", "<CALC_END>"),
         "code": ("<CODE_START>", "<CODE_END>"), "": ("<TOOL_START>", "<TOOL_END>")}
CONTROL = (PAD, BOS, START, SEP, END, *RESULT, *(mark for pair in CALLS.values() for mark in pair))
ROLES = ("system", "user", "assistant", "tool")
ROLE = "role"  # in the place of a control token: the name of a role follows
Message = Mapping[str, Any]


def template(leading_space: bool) -> str:
    """The renderer in Jinja, saved with tokenizers; leading_space: of the tokenizer (see encode_texts)."""
    content = "m['content']"
    if leading_space:
        content = "((' ' if m['content'] and m['content'][0] != ' ' else '') + m['content'])"
    space = " " if leading_space else ""
    calls = "".join("{% " + ("if" if i == 0 else "elif") + f" t == '{name}' %}}{{{{ '{first}' + {content} + '{last}' }}}}"
                    for i, (name, (first, last)) in enumerate((n, p) for n, p in CALLS.items() if n))
    return (
        "{{ '" + BOS + "' }}{% set ns = namespace(open=false) %}{% for m in messages %}{% set t = m['tool'] or '' %}"
        "{% if m['role'] == 'tool' %}{{ '" + RESULT[0] + "' + " + content + " + '" + RESULT[1] + "' }}"
        "{% elif m['role'] == 'assistant' %}{% if not ns.open %}{{ '" + START + "assistant" + SEP + "' }}{% endif %}"
        "{% generation %}" + calls
        + "{% elif t %}{{ '" + CALLS[""][0] + space + "' + t + ' ' + m['content'] + '" + CALLS[""][1] + "' }}"
        "{% else %}{{ " + content + " + '" + END + "' }}{% endif %}{% endgeneration %}{% set ns.open = t != '' %}"
        "{% else %}{{ '" + START + "' + m['role'] + '" + SEP + "' + " + content + " + '" + END + "' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt and not ns.open %}{{ '" + START + "assistant" + SEP + "' }}{% endif %}")


@dataclass
class Rendered:
    """Token ids of one dialogue and, for each, whether the loss sees it."""

    ids: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)


def control_ids(tokenizer: Any) -> dict[str, int]:
    """Ids of the control tokens; an error names the first that is missing."""
    vocabulary = tokenizer.get_added_vocab()
    for mark in CONTROL:
        if mark not in vocabulary:
            raise StageError(f"the tokenizer has no control token {mark!r}, so dialogues cannot be rendered. "
                             "tokenizer=bpe and tokenizer=pretrained register them; for a model of others, continue its "
                             "pretraining with that tokenizer wired in (steps.pretrain.model=... steps.pretrain.tokenizer=tokenizer).")
    return {mark: vocabulary[mark] for mark in CONTROL}


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of plain texts, with one leading space where the tokenizer was trained so (a name has one spelling then)."""
    return encoding.encode(tokenizer, spaced(tokenizer, texts))


def spaced(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """The texts as they are encoded."""
    if not tokenizer.init_kwargs.get("leading_space"):
        return list(texts)
    return [text if text.startswith(" ") or not text else " " + text for text in texts]


def document_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of documents, each begun by the same BOS token as every dialogue."""
    bos = tokenizer.bos_token_id
    return [[bos, *ids] for ids in encode_texts(tokenizer, texts)]


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of ids, control tokens dropped, without the leading space of encode_texts."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text[1:] if tokenizer.init_kwargs.get("leading_space") and text.startswith(" ") else text


def _pieces(messages: Sequence[Message], open_turn: bool) -> list[tuple[str | None, str, bool]]:
    """(control token, ROLE or None, text, supervised) in order. open_turn: end ready for the assistant to speak."""
    out: list[tuple[str | None, str, bool]] = [(BOS, "", False)]
    speaking = False

    def head(role: str) -> None:
        out.extend([(START, "", False), (ROLE, role, False), (SEP, "", False)])

    for index, turn in enumerate(messages):
        role, content, tool = turn["role"], str(turn["content"]), turn.get("tool") or ""
        if role not in ROLES:
            raise StageError(f"message {index} has the role {role!r}; known roles are {', '.join(ROLES)}")
        if role == "tool":
            out.extend([(RESULT[0], "", False), (None, content, False), (RESULT[1], "", False)])
        elif role == "assistant":
            if not speaking:
                head(role)
            if tool:
                first, last = CALLS.get(tool, CALLS[""])
                out.extend([(first, "", True), (None, content if tool in CALLS else f"{tool} {content}", True), (last, "", True)])
            else:
                out.extend([(None, content, True), (END, "", True)])
            speaking = bool(tool)
        else:
            head(role)
            out.extend([(None, content, False), (END, "", False)])
    if open_turn and not speaking:
        head("assistant")
    return out


def render(tokenizer: Any, dialogues: Sequence[Sequence[Message]], open_turn: bool = False) -> list[Rendered]:
    """Render many dialogues at once (one call of the tokenizer).

    open_turn=True ends each with the assistant's header, or right after a tool result: the prompt of generation.
    """
    marks = control_ids(tokenizer)
    plans = [_pieces(messages, open_turn) for messages in dialogues]
    role_ids = {role: tokenizer(role, add_special_tokens=False)["input_ids"] for role in ROLES}
    texts = [text for plan in plans for mark, text, _ in plan if mark is None]
    encoded = iter(encode_texts(tokenizer, texts))
    out = []
    for plan in plans:
        done = Rendered()
        for mark, text, supervised in plan:
            ids = next(encoded) if mark is None else role_ids[text] if mark is ROLE else [marks[mark]]
            done.ids += ids
            done.supervised += [supervised] * len(ids)
        out.append(done)
    return out


def prompt_ids(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Ids to generate from."""
    return [done.ids for done in render(tokenizer, dialogues, open_turn=True)]


def render_plain(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[Rendered]:
    """Dialogues as running text without chat tokens (reading documents of pretraining); loss on the answers only."""
    encoded = iter(encode_texts(tokenizer, [str(m["content"]) for messages in dialogues for m in messages]))
    out = []
    for messages in dialogues:
        done = Rendered([tokenizer.bos_token_id], [False])
        for turn in messages:
            ids = next(encoded)
            done.ids += ids
            done.supervised += [turn["role"] == "assistant"] * len(ids)
        out.append(done)
    return out


def parse_reply(tokenizer: Any, ids: Iterable[int]) -> tuple[Message, bool]:
    """What the assistant said up to its first stop: (message, ended). ended is False when it ran out of tokens.

    A call gives ``message("assistant", argument, tool=name)``; text before the call mark is dropped with it.
    """
    marks = control_ids(tokenizer)
    opening = {marks[first]: (name, marks[last]) for name, (first, last) in CALLS.items()}
    text: list[int] = []
    call: tuple[str, int] | None = None
    for token in ids:
        if call is None and token in opening:
            call, text = opening[token], []
        elif call is not None and token == call[1]:
            name, argument = call[0], decode(tokenizer, text)
            if not name:
                name, _, argument = argument.partition(" ")
            return message("assistant", argument, name), True
        elif token == marks[END]:
            return message("assistant", decode(tokenizer, text)), call is None
        elif token == marks[BOS]:
            break
        else:
            text.append(token)
    return message("assistant", decode(tokenizer, text)), False


def stop_ids(tokenizer: Any) -> list[int]:
    """Ids that end generation: end of turn, end of document, end of any tool call."""
    marks = control_ids(tokenizer)
    return [marks[END], marks[BOS], *(marks[last] for _, last in CALLS.values())]


def pack(rows: Sequence[Rendered], length: int, pad: int, seed: int) -> tuple[list[dict[str, list[int]]], int]:
    """Rendered rows packed whole into rows of ``length`` tokens (packing.py): (rows of input_ids, labels, position_ids; cut tokens).

    A document longer than a row is cut, and the tokens cut are counted.
    """
    packed = packing.Packed(packing.Pieces.of(rows), length, pad, seed)
    return [{name: values.tolist() for name, values in row.items() if name != "row"} for row in packed], packed.cut
