"""Blind comparisons of two models: a person votes, and the votes are preference pairs.

A vote is a row of ``studio/votes.jsonl`` beside the runs, in the form that ``preferences=files``
reads. A tie is kept, too; the reader counts it and leaves it out.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmstages.core.errors import StageError
from llmstages.data.intervals import wilson
from llmstages.serve import fields
from llmstages.serve.answers import answer, answer_lines, answer_object
from llmstages.serve.replies import reply_events, settings_of
from llmstages.studio.notes import Notes
from llmstages.text.messages import message

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from llmstages.studio.app import Studio

FILE = "votes.jsonl"
SIDES = ("first", "second")
CHOICES = (*SIDES, "tie")
MOST_OPEN = 100  # pairs that wait for a vote


@dataclass
class Pair:
    """Two answers to one prompt, whose models the voter does not know yet.

    Attributes:
        prompt: what both were asked.
        models: by side.
        answers: by side, as they are made; a pair can be voted on when both are there.
    """

    prompt: str
    models: dict[str, str]
    answers: dict[str, str]


class Booth:
    """The pairs that wait for a vote, and the votes so far."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.notes = Notes(studio.notes / FILE)
        self._open: OrderedDict[str, Pair] = OrderedDict()
        self._lock = threading.Lock()

    def draw(self, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Two answers to a prompt, streamed; the last event names the pair to vote on.

        Raises:
            StageError: there are not two different chat models.
        """
        prompt = fields.text(given, "prompt")
        models = fields.names(given, "models", 20)
        if len(set(models)) < 2:
            raise StageError("a comparison needs two different models")
        drawn = random.SystemRandom().sample(sorted(set(models)), 2)
        pair = Pair(prompt, dict(zip(SIDES, drawn, strict=True)), {})
        settings = settings_of(given)
        for side, model in pair.models.items():
            loaded = self.studio.pool.get(model)
            for event in reply_events(loaded, [message("user", prompt)], settings):
                if event["what"] == "done":
                    pair.answers[side] = _last_text(event["turns"])
                elif event["what"] == "text":
                    yield {"what": "text", "side": side, "text": event["text"]}
        id = secrets.token_hex(16)
        with self._lock:
            self._open[id] = pair
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        yield {"what": "pair", "pair": id, "same": len(set(pair.answers.values())) == 1}

    def vote(self, given: dict[str, Any]) -> dict[str, Any]:
        """Store a vote. Returns the models of the pair, and the standing.

        Raises:
            StageError: the pair is not open (any more), or the choice is none.
        """
        choice = given.get("choice")
        if choice not in CHOICES:
            raise StageError(f"choice must be one of {', '.join(CHOICES)}")
        id = str(given.get("pair"))
        with self._lock:
            pair = self._open.pop(id, None)
        if pair is None:
            raise StageError("there is no such pair to vote on; each is voted on once")
        try:
            self._store(pair, str(choice))
        except StageError:
            with self._lock:
                self._open[id] = pair  # it can be voted on again
            raise
        return {"models": pair.models, **self.standing()}

    def _store(self, pair: Pair, choice: str) -> None:
        winner = SIDES[0] if choice == "tie" else choice
        loser = next(side for side in SIDES if side != winner)
        self.notes.add(
            {
                "prompt": [message("user", pair.prompt)],
                "chosen": [message("assistant", pair.answers[winner])],
                "rejected": [message("assistant", pair.answers[loser])],
                "model_chosen": pair.models[winner],
                "model_rejected": pair.models[loser],
                # The reader of preferences leaves out pairs whose scores are the same.
                "score_chosen": 0 if choice == "tie" else 1,
                "score_rejected": 0,
                "first": winner == SIDES[0],
            }
        )

    def prompt(self) -> dict[str, str]:
        """A question of the run, drawn at random.

        Raises:
            StageError: the run has no problems.
        """
        from llmstages.data import tables

        steps = self.studio.run.of_kind("problems")
        if not steps:
            raise StageError("the run has no step that made problems to draw a prompt from")
        step = random.SystemRandom().choice(steps)
        table = tables.load(step.path / "data")
        row = table[random.SystemRandom().randrange(len(table))]
        return {"prompt": str(row["prompt"][-1]["content"]), "step": step.name}

    def standing(self) -> dict[str, Any]:
        """Votes so far: for each model its share of wins, with interval; ties count half."""
        wins: defaultdict[str, float] = defaultdict(float)
        games: Counter[str] = Counter()
        rows = self.notes.rows()
        for row in rows:
            is_tie = row["score_chosen"] == row["score_rejected"]
            wins[row["model_chosen"]] += 0.5 if is_tie else 1
            wins[row["model_rejected"]] += 0.5 if is_tie else 0
            games.update((row["model_chosen"], row["model_rejected"]))
        table = []
        for model, played in games.items():
            low, high = wilson(wins[model], played)
            share = wins[model] / played
            table.append({"model": model, "votes": played, "share": share, "interval": [low, high]})
        table.sort(key=lambda row: -row["share"])
        return {"votes": len(rows), "standing": table, "file": str(self.notes.path)}


def _last_text(turns: list[dict[str, Any]]) -> str:
    """The answer: what was said last, and is no call."""
    texts = [turn["content"] for turn in turns if turn["role"] == "assistant" and not turn["tool"]]
    return texts[-1] if texts else ""


def routes(studio: Studio) -> list[BaseRoute]:
    """POST /api/pair and /api/vote, GET /api/votes and /api/prompt."""
    from starlette.routing import Route

    booth = Booth(studio)

    async def pair(request: Request) -> Response:
        return await answer_lines(request, booth.draw)

    async def vote(request: Request) -> Response:
        return await answer_object(request, booth.vote)

    def votes(request: Request) -> Response:
        return answer(booth.standing)

    def prompt(request: Request) -> Response:
        return answer(booth.prompt)

    return [
        Route("/api/prompt", prompt),
        Route("/api/pair", pair, methods=["POST"]),
        Route("/api/vote", vote, methods=["POST"]),
        Route("/api/votes", votes),
    ]
