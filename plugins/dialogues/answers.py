"""Requests and their answers, whoever answers them: kept as they come, so that an interrupted run never asks (or pays) twice."""

from __future__ import annotations

import dataclasses as dc
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from llmstages.core.digest import canonical, sha256
from llmstages.core.stage import Context

FAILED = ("failed", "refused")  # no answer, and an interrupted run asks again


@dc.dataclass(frozen=True)
class Said:
    """One answer. rule and reason: why it cannot be used, "" where it can; tokens: as far as the answerer counts them."""

    text: str = ""
    rule: str = ""
    reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Answerer(Protocol):
    """A model that answers texts. name: as it stands in the data; settings: all else that an answer depends on."""

    name: str
    settings: dict[str, Any]

    def ask(self, requests: Sequence[str], missing: Sequence[int]) -> Iterator[tuple[int, Said]]:
        """Answers of the requests with the numbers ``missing`` as they come; it may answer more than those."""
        ...


class Desk:
    """Hands requests to an answerer, keeps what comes back in ``work``, and counts.

    shown: dialogue -> its requests and answers as they are shown to people, for the dialogues it was made with.
    """

    def __init__(self, ctx: Context, shown: Sequence[str]) -> None:
        self._ctx, self._file = ctx, ctx.work / "answers.jsonl"
        self._kept = dict(_read(self._file))
        self.shown: dict[str, list[dict[str, str]]] = {name: [] for name in shown}
        self.counts: Counter[str] = Counter()

    def ask(
        self, answerer: Answerer, names: Sequence[str], requests: Sequence[str], what: str
    ) -> list[Said]:
        """The answers, in order. names: of the dialogues the requests are about; what: told by the progress bar."""
        again: Counter[str] = Counter()
        keys = []
        for request in requests:  # equal requests are meant to have answers of their own
            again[request] += 1
            keys.append(
                sha256(canonical([answerer.name, answerer.settings, request, again[request]]))
            )
        missing = [i for i, key in enumerate(keys) if key not in self._kept]
        if len(missing) < len(keys):
            self._ctx.say(
                f"{what}: {len(keys) - len(missing)} of {len(keys)} answers are there from before the interruption"
            )
        found = {i: self._kept[key] for i, key in enumerate(keys) if key in self._kept}
        with (
            self._ctx.progress(f"{self._ctx.step} {what}", len(missing)) as tick,
            open(self._file, "a", encoding="utf-8") as kept,
        ):
            for i, said in answerer.ask(requests, missing) if missing else ():
                if i in found:
                    continue
                found[i] = said
                if said.rule not in FAILED:
                    self._kept[keys[i]] = said
                    kept.write(
                        "\n" + json.dumps([keys[i], dc.asdict(said)])
                    )  # the line break first: a line that a kill cut off ends there
                    kept.flush()
                tick(1)
        for i, (name, request) in enumerate(zip(names, requests, strict=True)):
            said = found[i]
            self.counts += Counter(
                requests=1,
                prompt_tokens=said.prompt_tokens,
                completion_tokens=said.completion_tokens,
            )
            if name in self.shown:
                self.shown[name].append({"asked": request, "said": said.text or said.reason})
        return [found[i] for i in range(len(requests))]


def _read(file: Path) -> Iterator[tuple[str, Said]]:
    if not file.exists():
        return
    with open(file, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                key, said = json.loads(line)
                yield key, Said(**said)
            except (ValueError, TypeError):  # blank, or cut off by a kill: asked again
                continue
