"""Prompts, replies and running text as token ids: the functions that every stage calls.

Training, evaluation, RL and chat all use the tokenizer's own chat template through this module. How
a template becomes tokens is in render.py, the named templates are in templates.py.

With the default template, a tool call is inside the assistant's turn:
``<|im_start|>assistant<|im_sep|>`` ``<SEARCH_START>query<SEARCH_END>``
``<RESULT_START>text<RESULT_END>`` ``answer<|im_end|>``, without the blanks.
Calls and answers are supervised, results are not.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.errors import StageError
from llmstages.text import encode
from llmstages.text.messages import Message, message
from llmstages.text.render import Rendered, render, render_prompts
from llmstages.text.special_tokens import special_tokens_of
from llmstages.text.templates import ROLES, calls_in, template_of
from llmstages.text.training_template import has_training_form

__all__ = ["ROLES", "Message", "Rendered", "render", "template_of"]
PROBE = "9173"  # an answer that shows what a template writes around answers


@dataclass(frozen=True)
class ControlTokens:
    """Ids of the control tokens of a tokenizer and its chat template.

    bos: what every dialogue and document begins with; None where there is none, or where the
    template begins every turn with it (SmolLM2). pad, end: None where there is none; end is the
    token that ends a turn of the assistant. heads: those in the header of a turn that the assistant
    never says. calls: tool -> (first, last), "" for any other tool. lead: the text (not an id) that
    the template writes before each answer.
    """

    bos: int | None
    pad: int | None
    end: int | None
    heads: frozenset[int]
    calls: Mapping[str, tuple[int, int]]
    lead: str


# A dictionary beside the tokenizers: an attribute of a tokenizer would be pickled with it.
_cache: weakref.WeakKeyDictionary[Any, tuple[Any, ControlTokens]] = weakref.WeakKeyDictionary()


def control_tokens(tokenizer: Any) -> ControlTokens:
    """The control tokens of a tokenizer, found by rendering a short dialogue.

    They are cached as long as the tokenizer does not change.
    """
    state = (
        template_of(tokenizer),
        len(tokenizer),
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    cached = _cache.get(tokenizer)
    if cached is not None and cached[0] == state:
        return cached[1]
    control = _find_control_tokens(tokenizer)
    _cache[tokenizer] = state, control
    return control


def _find_control_tokens(tokenizer: Any) -> ControlTokens:
    special_ids = {id for id, _, _ in special_tokens_of(tokenizer).ids.values()}
    question, reply = message("user", "a"), message("assistant", PROBE)
    prompt, other = (
        rendered.ids for rendered in render_prompts(tokenizer, [[question], [message("user", "b")]])
    )
    answer = _answer_ids(render(tokenizer, [[question, reply]])[0], prompt)

    longer = _longer_prompt(tokenizer, [question, reply, question])
    # Phi 3 writes one more token at the end of a dialogue: not what ends a turn within it.
    same = answer[: common_length(answer, longer[len(prompt) :])]
    end = _last_after_text(tokenizer, same, special_ids)
    if end is None:
        end = _last_after_text(tokenizer, answer, special_ids)
    bos = _bos_of_dialogues(tokenizer, longer)
    content = common_length(prompt, other)  # where the texts of the questions stand
    text = decode(tokenizer, answer)
    heads: set[int] = set()
    if not has_training_form(tokenizer):  # where there is one, TRL has made the mask
        heads = _heads(prompt[:content], prompt[content:], answer, special_ids - {bos})
    return ControlTokens(
        bos=bos,
        pad=tokenizer.pad_token_id,
        end=end,
        heads=frozenset(heads - {bos, end}),
        calls=_call_tokens(tokenizer),
        lead=text[: text.index(PROBE)] if PROBE in text else "",
    )


def _answer_ids(row: Rendered, prompt: Sequence[int]) -> list[int]:
    """What a row has after its prompt, whatever its loss mask says."""
    if row.ids[: len(prompt)] == prompt:
        return row.ids[len(prompt) :]
    # The check of the prompt reports such a template; the mask is the next best thing.
    return [token for token, on in zip(row.ids, row.supervised, strict=True) if on]


def _heads(
    before: Sequence[int], after: Sequence[int], answer: Sequence[int], special_ids: set[int]
) -> set[int]:
    """The control tokens of the headers that the assistant never says.

    Args:
        before, after: the prompt of one question, cut at the question.
        answer: what the assistant says. gpt-oss has a token in the headers of users that the
            assistant says as well; the token that begins a turn of the user is a header even then.
    """
    header = [token for token in before if token in special_ids]
    heads = special_ids.intersection([*before, *after]) - set(answer)
    # The first control token after the question ends the turn. What it ended before (a system turn)
    # does not belong to the header of the user.
    ends = [token for token in after if token in special_ids][:1]
    for place in range(len(header) - 1, -1, -1):
        if header[place] in ends:
            header = header[place + 1 :]
            break
    return heads | set(header[:1])


def _longer_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The prompt of a second question; empty where the template knows one exchange alone."""
    try:
        return render_prompts(tokenizer, [messages])[0].ids
    except StageError:
        return []


def _last_after_text(tokenizer: Any, answer: Sequence[int], special_ids: set[int]) -> int | None:
    """The last control token of an answer; None if it has none after its text."""
    places = [place for place, token in enumerate(answer) if token in special_ids]
    if places and PROBE in decode(tokenizer, answer[: places[-1]]):
        return answer[places[-1]]
    return None


def _bos_of_dialogues(tokenizer: Any, longer: Sequence[int]) -> int | None:
    """The BOS token, unless the template writes it in later turns too.

    longer: the prompt of a second question.
    """
    bos = tokenizer.bos_token_id
    begins = 0
    while begins < len(longer) and longer[begins] == bos:
        begins += 1
    return None if bos in longer[begins:] else bos


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two rows have in common at their beginning."""
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length


def begins_with_bos(tokenizer: Any) -> bool:
    """Whether the chat template begins dialogues with BOS; Qwen's, for one, does not."""
    bos = tokenizer.bos_token_id
    if not template_of(tokenizer) or control_tokens(tokenizer).bos is None:
        return False
    return prompt_ids(tokenizer, [[message("user", "a")]])[0][:1] == [bos]


def _call_tokens(tokenizer: Any) -> dict[str, tuple[int, int]]:
    """Ids of the tokens around calls, for the tools whose tokens the tokenizer has."""
    added = tokenizer.get_added_vocab()
    return {
        tool: (added[first], added[last])
        for tool, (first, last) in calls_in(template_of(tokenizer)).items()
        if first in added and last in added
    }


def encode_texts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of plain texts, with one leading space where the tokenizer was trained so.

    With the space, a name has one spelling wherever it stands. A text that begins with a space gets
    one more, so that ``decode`` gives it back as it was: Python code, say.
    """
    return encode.encode(tokenizer, spaced(tokenizer, texts))


def spaced(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """The texts as they are encoded: with the leading space where the tokenizer was trained so."""
    if not tokenizer.init_kwargs.get("leading_space"):
        return list(texts)
    return [text and f" {text}" for text in texts]


def document_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of documents, which begin with the same BOS token as dialogues, if there is one."""
    begin = begin_ids(tokenizer)
    return [[*begin, *ids] for ids in encode_texts(tokenizer, texts)]


def begin_ids(tokenizer: Any) -> list[int]:
    """What documents and running texts begin with: BOS, or nothing where the tokenizer has none.

    A BOS that begins every turn of the chat template would tell the model that somebody speaks.
    """
    bos = tokenizer.bos_token_id
    if template_of(tokenizer):
        bos = control_tokens(tokenizer).bos
    return [] if bos is None else [bos]


def document_end(tokenizer: Any) -> int | None:
    """The token behind the last one of a document: EOS, or BOS where EOS ends turns of a chat.

    A base model that ended turns would mix up the end of a text and that of an answer. BOS says
    what <|endoftext|> says in GPT-2: another document begins. None if the tokenizer has neither.
    """
    eos = tokenizer.eos_token_id
    if not template_of(tokenizer) or eos != control_tokens(tokenizer).end:
        return eos
    return next(iter(begin_ids(tokenizer)), None)


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids, without control tokens and without the leading space of encode_texts."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if tokenizer.init_kwargs.get("leading_space"):
        return text.removeprefix(" ")
    return text


def prompt_ids(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Ids to generate from: each dialogue up to where the assistant is to speak."""
    return [rendered.ids for rendered in render_prompts(tokenizer, dialogues)]


def render_plain(tokenizer: Any, dialogues: Sequence[Sequence[Message]]) -> list[Rendered]:
    """Dialogues as running text without chat tokens, for pretraining; answers are supervised."""
    contents = [str(turn["content"]) for messages in dialogues for turn in messages]
    encoded = iter(encode_texts(tokenizer, contents))
    begin = begin_ids(tokenizer)
    rendered_dialogues = []
    for messages in dialogues:
        rendered = Rendered(list(begin), [False] * len(begin))
        for turn in messages:
            ids = next(encoded)
            rendered.ids += ids
            rendered.supervised += [turn["role"] == "assistant"] * len(ids)
        rendered_dialogues.append(rendered)
    return rendered_dialogues


def parse_reply(tokenizer: Any, ids: Iterable[int]) -> tuple[Message, bool]:
    """(message, ended): what the assistant said up to its first stop token.

    A call gives ``message("assistant", argument, tool=name)``; text before the first token of the
    call is dropped. ended: whether the call or the turn is complete; not so where generation ran
    out of tokens.
    """
    control = control_tokens(tokenizer)
    openings = {first: (name, last) for name, (first, last) in control.calls.items()}
    tokens: list[int] = []
    call: tuple[str, int] | None = None
    ended = False
    document_ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    for token in ids:
        if call is None and token in openings:
            call = openings[token]
            tokens = []
        elif call is not None and token == call[1]:
            name = call[0]
            argument = _answer_text(tokenizer, tokens, control.lead)
            if not name:
                name, _, argument = argument.partition(" ")
            return message("assistant", argument, name), True
        elif token == control.end:
            ended = call is None
            break
        elif token in document_ends:
            break
        else:
            tokens.append(token)
    return message("assistant", _answer_text(tokenizer, tokens, control.lead)), ended


def _answer_text(tokenizer: Any, ids: Sequence[int], lead: str) -> str:
    return decode(tokenizer, ids).removeprefix(lead)


def padding_id(tokenizer: Any) -> int:
    """The id that fills up shorter rows of a batch, where neither loss nor attention looks."""
    for id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if id is not None:
            return id
    return 0


def stop_ids(tokenizer: Any) -> list[int]:
    """Ids that end generation: end of turn, end of document, end of any tool call."""
    control = control_tokens(tokenizer)
    call_ends = [last for _, last in control.calls.values()]
    stops = [control.end, tokenizer.bos_token_id, tokenizer.eos_token_id, *call_ends]
    return list(dict.fromkeys(token for token in stops if token is not None))


def reply_length(ids: Sequence[int], stops: Sequence[int]) -> int:
    """Number of ids up to the first stop token, which is included."""
    for index, token in enumerate(ids):
        if token in stops:
            return index + 1
    return len(ids)
