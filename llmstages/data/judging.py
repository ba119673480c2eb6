"""A model behind an address that judges replies: what graders and rewards that ask one share.

A reply stands between marks that it cannot contain (its own hash), so that it cannot end its frame
and speak to the judge. The key is read from the environment when it is used (endpoint.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmstages.core.digest import sha256
from llmstages.core.stage import option
from llmstages.data.endpoint import Answer, Endpoint, check_address, check_key_variable
from llmstages.text import grading


@dataclass(frozen=True)
class JudgeOptions:
    """Options of every component that asks a judge."""

    endpoint: str = option(help="address of the service, such as http://localhost:8000/v1")
    model: str = option(help="the model as the service calls it")
    key_variable: str = option("OPENAI_API_KEY", "environment variable with the key")
    max_new_tokens: int = option(256, "longest verdict in tokens", ge=1)
    concurrency: int = option(8, "requests at once", ge=1)
    timeout: float = option(60.0, "seconds until a request counts as failed", gt=0)
    retries: int = option(4, "times a failed request is repeated", ge=0)
    wait: float = option(1.0, "seconds before the first repetition, doubled each time", ge=0)
    patience: int = option(5, "failed requests in a row after which the run stops", ge=1)

    def __post_init__(self) -> None:
        check_key_variable(self.key_variable)
        check_address(self.endpoint)


def ask_judge(
    options: JudgeOptions, requests: Sequence[str], replies: Sequence[str]
) -> list[Answer | None]:
    """What the judge wrote about each reply; None for one that needs no judge: empty, or a loop.

    Args:
        options: of the component.
        requests: what the judge is asked about each reply.
        replies: what the model said.

    Raises:
        StageError: no answer of the service can be expected any more.
    """
    endpoint = Endpoint(
        step="judge",
        url=options.endpoint,
        name=options.model,
        settings={"temperature": 0.0, "max_tokens": options.max_new_tokens},
        key_variable=options.key_variable,
        concurrency=options.concurrency,
        timeout=options.timeout,
        retries=options.retries,
        wait=options.wait,
        patience=options.patience,
        saved="Nothing of this step is lost that was there before",
    )
    missing = [place for place, reply in enumerate(replies) if grading.own_part(reply).strip()]
    answers: list[Answer | None] = [None] * len(replies)
    for place, answer in endpoint.ask(requests, missing):
        answers[place] = answer
    return answers


def frame_of(reply: str) -> str:
    """The mark before and after a reply; the same reply is asked about in the same words."""
    return f"=== {sha256(reply)[:16]} ==="


def question_of(prompt: Sequence[Mapping[str, Any]]) -> str:
    """What the user asked in a prompt."""
    asked = [str(turn["content"]) for turn in prompt if turn["role"] == "user"]
    return "\n".join(asked) or "(not known)"
