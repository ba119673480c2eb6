"""Whether a call helps: how much its result lowers the loss of the answer.

The filter of Toolformer (Schick et al. 2023, section 2, "Filtering API calls"). The loss of what
follows is computed without the call (``no_call``), with the call but no result (``no_result``), and
with both (``result``). A call is useful if ``min(no_call, no_result) - result`` reaches a margin,
tau_f in the paper. Weights of the tokens fall in a straight line (section 4.1: w_t is proportional
to max(0, 1 - 0.2 t)), so that those that follow the call at once count most.

Two things differ. In the paper a call stands in the middle of a text, right before the tokens that
it may help with. In a dialogue it stands before the whole answer, so the weights begin at the first
word of the answer that the result tells and the question does not; without such a word at the first
token of the answer. And the paper shows the call before the text, since its model never saw calls;
``place=turn`` shows it where it will be trained, ``place=prefix`` as the paper does.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmstages.plugins.tools.proposals import Candidate
from llmstages.text.messages import Message, message

VARIANTS = ("no_call", "no_result", "result")
TERM = re.compile(r"\w+(?:[.,]\d+)*")
LONG_WORD = 5  # characters, from which a word that is no name and no number says something


def weights(count: int, horizon: int) -> list[float]:
    """The weight of each of ``count`` tokens; together they are 1.

    horizon: tokens over which the weights fall to zero (5 in the paper); 0: all are equal.
    """
    if horizon:
        raw = [max(0.0, 1 - place / horizon) for place in range(count)]
    else:
        raw = [1.0] * count
    total = sum(raw)
    return [weight / total for weight in raw]


def weighted_loss(nats: Sequence[float], horizon: int) -> float:
    """The loss of tokens in nats per token, weighted as ``weights`` says."""
    shares = weights(len(nats), horizon)
    return sum(share * loss for share, loss in zip(shares, nats, strict=True))


def gain(losses: Mapping[str, float]) -> float:
    """How much call and result lower the loss: L- minus L+ of the paper, in nats per token."""
    return min(losses["no_call"], losses["no_result"]) - losses["result"]


def first_told(question: str, answer: str, result: str) -> int | None:
    """Where the answer first says what the result tells and the question does not.

    It is compared by words that say something: numbers, names and long words. Returns the position
    of a character; None if there is no such word.
    """
    told = _telling_words(result) - _telling_words(question)
    for match in TERM.finditer(answer):
        if _says_something(match[0]) and _normal(match[0]) in told:
            return match.start()
    return None


def _telling_words(text: str) -> set[str]:
    return {_normal(word) for word in TERM.findall(text) if _says_something(word)}


def _says_something(word: str) -> bool:
    return any(map(str.isdigit, word)) or word[0].isupper() or len(word) >= LONG_WORD


def _normal(word: str) -> str:
    """1,591 and 1591 are one number."""
    return word.replace(",", "").casefold()


def variants(
    messages: Sequence[Message], candidate: Candidate, place: str
) -> dict[str, list[Message]]:
    """The dialogue without the call, with the call alone, and with call and result.

    place: "turn" (a call and its result as turns of their own) or "prefix" (as text before the
    question).
    """
    *before, answer = messages
    shown: dict[str, list[Message]] = {"no_call": list(messages)}
    for variant, result in (("no_result", ""), ("result", candidate.result)):
        if place == "prefix":
            text = f"[{candidate.tool}({candidate.argument}) -> {result}]"
            shown[variant] = [*_with_prefix(before, text), answer]
        else:
            call = message("assistant", candidate.argument, candidate.tool)
            told = message("tool", result, candidate.tool)
            shown[variant] = [*before, call, told, answer]
    return shown


def _with_prefix(messages: Sequence[Message], text: str) -> list[Message]:
    """The messages with a text before the last question."""
    changed = list(messages)
    for place in range(len(changed) - 1, -1, -1):
        if changed[place]["role"] == "user":
            content = f"{text}\n{changed[place]['content']}"
            changed[place] = {**changed[place], "content": content}
            break
    return changed


class Scorer:
    """Computes the losses of candidates with a model.

    Attributes:
        passes: sequences that the model has read.
    """

    def __init__(
        self, model: Any, tokenizer: Any, tools: Mapping[str, Any], place: str, batch: int
    ) -> None:
        self.passes = 0
        self._model = model
        self._tokenizer = tokenizer
        self._tools = tools
        self._place = place
        self._batch = batch
        self._limit = getattr(model.config, "max_position_embeddings", None)

    def sequences(
        self, messages: Sequence[Message], candidate: Candidate
    ) -> list[tuple[list[int], int]] | None:
        """(ids, where the answer begins) of each variant; None if one is longer than the context.

        What stands before the answer is the prompt that the model would get at inference.
        """
        from llmstages.text.generate import with_schemas
        from llmstages.text.render import render_answers
        from llmstages.train.scoring import answer_span

        shown = variants(messages, candidate, self._place)
        dialogues = [
            with_schemas(self._tokenizer, shown[variant], self._tools) for variant in VARIANTS
        ]
        rows = []
        for rendered in render_answers(self._tokenizer, dialogues):
            span = answer_span(rendered, self._tokenizer)
            if span is None:
                return None
            rows.append((rendered.ids[: span.stop], span.start))
        if self._limit and any(len(ids) > self._limit for ids, _ in rows):
            return None
        return rows

    def losses(
        self, rows: Sequence[tuple[list[int], int]], advance: Callable[[float], None]
    ) -> list[list[float]]:
        """Nats of each token of the answers. Equal sequences are computed once."""
        from llmstages.text.chat_format import padding_id
        from llmstages.train.token_losses import token_losses

        places: dict[tuple[tuple[int, ...], int], int] = {}
        for ids, first in rows:
            places.setdefault((tuple(ids), first), len(places))
        self.passes += len(places)
        unique = list(places)
        pad = padding_id(self._tokenizer)
        nats = token_losses(self._model, pad, unique, self._batch, advance)
        advance(len(rows) - len(unique))
        return [nats[places[tuple(ids), first]] for ids, first in rows]

    def first_token(self, ids: Sequence[int], answer: str, character: int | None) -> int:
        """The number of the token with a character of the answer; 0 for no character.

        ids: of the answer alone.
        """
        from llmstages.text.chat_format import decode

        if character is None:
            return 0
        # The template may write something before the answer, or trim it.
        lead = max(0, decode(self._tokenizer, ids).find(answer.strip()))
        blanks = len(answer) - len(answer.lstrip())
        target = lead + character - blanks

        def characters_through(place: int) -> int:
            return len(decode(self._tokenizer, ids[: place + 1]))

        place = bisect.bisect_right(range(len(ids)), target, key=characters_through)
        return min(place, len(ids) - 1)


def score(
    candidates: Sequence[Candidate],
    dialogues: Mapping[int, Sequence[Message]],
    scorer: Any,
    horizon: int,
    advance: Callable[[float], None],
) -> None:
    """Set the losses of candidates, or the reason why there are none.

    Args:
        candidates: with their results.
        dialogues: number -> messages, which end with an answer.
        scorer: a Scorer.
        horizon: see ``weights``.
        advance: called with the number of sequences that are done.
    """
    scored = []
    rows = []
    for candidate in candidates:
        own_rows = scorer.sequences(dialogues[candidate.dialogue], candidate)
        if own_rows is None:
            candidate.reason = "longer than the model's context"
            continue
        scored.append(candidate)
        rows += own_rows
    nats = scorer.losses(rows, advance)
    for number, candidate in enumerate(scored):
        messages = dialogues[candidate.dialogue]
        answer = str(messages[-1]["content"])
        question = "\n".join(str(turn["content"]) for turn in messages[:-1])
        character = first_told(question, answer, candidate.result)
        losses = {}
        for place, variant in enumerate(VARIANTS):
            at = number * len(VARIANTS) + place
            ids, first = rows[at]
            start = scorer.first_token(ids[first:], answer, character)
            losses[variant] = weighted_loss(nats[at][start:], horizon)
        candidate.losses = losses
