"""Requests to a model and its answers.

Answers are saved as they come, so that a step that was interrupted never asks (or pays) twice.
"""

from __future__ import annotations

import dataclasses as dc
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from llmstages.core.digest import canonical, sha256
from llmstages.core.stage import Context
from llmstages.data.endpoint import FAILED, Answer


class Answerer(Protocol):
    """A model that answers texts.

    Attributes:
        name: the name of the model in the data.
        settings: everything else that an answer depends on.
    """

    name: str
    settings: dict[str, Any]

    def ask(self, requests: Sequence[str], missing: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        """Answer the requests with the numbers ``missing``; it may answer others as well.

        Yields (number of the request, answer) as the answers come.
        """
        ...


class AnswerCache:
    """Passes requests on to an answerer, saves the answers in ``work``, and counts.

    Attributes:
        exchanges: id of a dialogue -> its requests and answers, for the dialogues in ``shown``.
        counts: requests, and tokens as far as they are known.
    """

    def __init__(self, ctx: Context, shown: Sequence[str]) -> None:
        self._ctx = ctx
        self._file = ctx.work / "answers.jsonl"
        self._saved = dict(_read(self._file))
        self.exchanges: dict[str, list[dict[str, str]]] = {name: [] for name in shown}
        self.counts: Counter[str] = Counter()

    def ask(
        self, answerer: Answerer, names: Sequence[str], requests: Sequence[str], what: str
    ) -> list[Answer]:
        """The answers to the requests, in order.

        Args:
            answerer: the model to ask for answers that are not saved.
            names: the id of the dialogue that each request is about.
            requests: the texts.
            what: the name of the work on the progress bar.
        """
        keys = _keys(answerer, requests)
        answers = {
            number: self._saved[key] for number, key in enumerate(keys) if key in self._saved
        }
        missing = [number for number in range(len(keys)) if number not in answers]
        if answers:
            self._ctx.say(
                f"{what}: {len(answers)} of {len(keys)} answers are there from before the "
                "interruption"
            )
        if missing:
            self._ask_missing(answerer, keys, requests, answers, missing, what)
        ordered = [answers[number] for number in range(len(requests))]
        for name, request, answer in zip(names, requests, ordered, strict=True):
            self._count(answer)
            if name in self.exchanges:
                said = answer.text or answer.reason
                self.exchanges[name].append({"asked": request, "said": said})
        return ordered

    def _ask_missing(
        self,
        answerer: Answerer,
        keys: Sequence[str],
        requests: Sequence[str],
        answers: dict[int, Answer],
        missing: Sequence[int],
        what: str,
    ) -> None:
        """Add the missing answers, and save each as it comes."""
        with (
            self._ctx.progress(f"{self._ctx.step} {what}", len(missing)) as tick,
            self._file.open("a", encoding="utf-8") as file,
        ):
            for number, answer in answerer.ask(requests, missing):
                if number in answers:
                    continue
                answers[number] = answer
                if answer.rule not in FAILED:
                    self._saved[keys[number]] = answer
                    # The line break comes first: it ends a line that a kill has cut off.
                    file.write("\n" + json.dumps([keys[number], dc.asdict(answer)]))
                    file.flush()
                tick(1)

    def _count(self, answer: Answer) -> None:
        self.counts["requests"] += 1
        self.counts["prompt_tokens"] += answer.prompt_tokens
        self.counts["completion_tokens"] += answer.completion_tokens


def _keys(answerer: Answerer, requests: Sequence[str]) -> list[str]:
    """The key of each request: model, settings and text."""
    occurrences: Counter[str] = Counter()
    keys = []
    for request in requests:
        # Equal requests are meant to have answers of their own, so they are numbered.
        occurrences[request] += 1
        value = [answerer.name, answerer.settings, request, occurrences[request]]
        keys.append(sha256(canonical(value)))
    return keys


def _read(file: Path) -> Iterator[tuple[str, Answer]]:
    if not file.exists():
        return
    with file.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                key, answer = json.loads(line)
                yield key, Answer(**answer)
            except (ValueError, TypeError):
                continue  # blank, or cut off by a kill: the request is sent again
