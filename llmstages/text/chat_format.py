"""One renderer for training, evaluation, RL and chat: messages -> token ids and the supervised mask, by the tokenizer's own chat template.

How a template becomes tokens is in rendering.py, the named templates are in templates.py. Here is what everybody calls: prompts,
replies read back, running text, where generation stops. With the default template a tool call sits inside the assistant's turn:
``<|im_start|>assistant<|im_sep|><SEARCH_START>query<SEARCH_END><RESULT_START>text<RESULT_END>answer<|im_end|>``; calls and
answers are supervised, results are not.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.text import encode
from llmstages.text.messages import Message, message
from llmstages.text.render import Rendered, render
from llmstages.text.special_tokens import special_tokens_of
from llmstages.text.templates import CALLS, ROLES, template_of

PROBE = "9173"  # what the assistant says where a template is asked what it writes around it
__all__ = ["CALLS", "ROLES", "Message", "Rendered", "render", "template_of"]


@dataclass(frozen=True)
class Control:
    """The control tokens of a tokenizer and its chat template, as ids. bos, pad, end: None where it has none.

    end: what ends a turn of the assistant. heads: those in the headers of turns. calls: tool -> (first, last), "" for any other tool.
    lead: what stands before each answer's own text.
    """

    bos: int | None
    pad: int | None
    end: int | None
    heads: frozenset[int]
    calls: Mapping[str, tuple[int, int]]
    lead: str


_control: weakref.WeakKeyDictionary[Any, tuple[Any, Control]] = (
    weakref.WeakKeyDictionary()
)  # an attribute would be pickled


def control(tokenizer: Any) -> Control:
    """Found by rendering a question and its answer; remembered while the tokenizer stays as it is."""
    state = (
        template_of(tokenizer),
        len(tokenizer),
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    known = _control.get(tokenizer)
    if known is None or known[0] != state:
        known = _control[tokenizer] = state, _find_control(tokenizer)
    return known[1]


def _find_control(tokenizer: Any) -> Control:
    ids = {id for id, _, _ in special_tokens_of(tokenizer).ids.values()}
    asked = [message("user", "a")]
    prompt, whole = (
        render(tokenizer, [asked], open_turn=True)[0],
        render(tokenizer, [[*asked, message("assistant", PROBE)]])[0],
    )
    said = [token for token, on in zip(whole.ids, whole.supervised, strict=True) if on]
    last = max((i for i, token in enumerate(said) if token in ids), default=-1)
    end = said[last] if last >= 0 and PROBE in decode(tokenizer, said[:last]) else None
    added = tokenizer.get_added_vocab()
    calls = {
        name: (added[first], added[last])
        for name, (first, last) in CALLS.items()
        if first in added and last in added
    }
    heads = frozenset(token for token in prompt.ids if token in ids) - {tokenizer.bos_token_id, end}
    text = decode(tokenizer, said)
    return Control(
        tokenizer.bos_token_id,
        tokenizer.pad_token_id,
        end,
        heads,
        calls,
        text[: text.index(PROBE)] if PROBE in text else "",
    )


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of plain texts, with one leading space where the tokenizer was trained so (a name has one spelling then)."""
    return encode.encode(tokenizer, spaced(tokenizer, texts))


def spaced(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """The texts as they are encoded."""
    if not tokenizer.init_kwargs.get("leading_space"):
        return list(texts)
    return [text if text.startswith(" ") or not text else " " + text for text in texts]


def document_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of documents, each begun by the same BOS token as every dialogue, where the tokenizer has one."""
    begin = begin_ids(tokenizer)
    return [[*begin, *ids] for ids in encode_texts(tokenizer, texts)]


def begin_ids(tokenizer: Any) -> list[int]:
    """What every document and running text begins with: BOS, or nothing where the tokenizer has none."""
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of ids, control tokens dropped, without the leading space of encode_texts."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text[1:] if tokenizer.init_kwargs.get("leading_space") and text.startswith(" ") else text


def prompt_ids(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Ids to generate from."""
    return [done.ids for done in render(tokenizer, dialogues, open_turn=True)]


def render_plain(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[Rendered]:
    """Dialogues as running text without chat tokens (reading documents of pretraining); loss on the answers only."""
    encoded = iter(
        encode_texts(tokenizer, [str(m["content"]) for messages in dialogues for m in messages])
    )
    out = []
    for messages in dialogues:
        done = Rendered(begin_ids(tokenizer), [False] * len(begin_ids(tokenizer)))
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
    known = control(tokenizer)
    opening = {first: (name, last) for name, (first, last) in known.calls.items()}
    text: list[int] = []
    call: tuple[str, int] | None = None
    for token in ids:
        if call is None and token in opening:
            call, text = opening[token], []
        elif call is not None and token == call[1]:
            name, argument = call[0], decode(tokenizer, text).removeprefix(known.lead)
            if not name:
                name, _, argument = argument.partition(" ")
            return message("assistant", argument, name), True
        elif token == known.end:
            return message(
                "assistant", decode(tokenizer, text).removeprefix(known.lead)
            ), call is None
        elif token in (known.bos, tokenizer.eos_token_id):
            break
        else:
            text.append(token)
    return message("assistant", decode(tokenizer, text).removeprefix(known.lead)), False


def stop_ids(tokenizer: Any) -> list[int]:
    """Ids that end generation: end of turn, end of document, end of any tool call."""
    known = control(tokenizer)
    ends = [
        known.end,
        known.bos,
        tokenizer.eos_token_id,
        *(last for _, last in known.calls.values()),
    ]
    return list(dict.fromkeys(token for token in ends if token is not None))
