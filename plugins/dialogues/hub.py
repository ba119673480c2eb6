"""Conversations from a data set on the Hugging Face Hub, in the same formats as from files."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping
from typing import Any

from llmstages.core.stage import Context, option
from llmstages.data.dialogues import TEST_FRACTION_HELP
from llmstages.data.formats import DIALOGUES, REASONING, REASONING_HELP
from llmstages.data.readers.examples import convert_dialogues, write_dialogues
from llmstages.data.readers.hub import hub_rows


class Hub:
    """The first ``limit`` usable conversations of a data set in its order, streamed."""

    @dc.dataclass(frozen=True)
    class Config:
        data_set: str = option("", "OWNER/NAME on the Hub, or a local folder of data files")
        subset: str = option("", "configuration of the data set; empty takes its default")
        split: str = option("train", "split of the data set")
        revision: str = option(
            "main", "branch, tag or commit; name a commit for a result that can be repeated"
        )
        format: str = option(
            "detect",
            "format of the rows; detect looks at each row's fields",
            choices=("detect", *DIALOGUES),
        )
        limit: int = option(10_000, "read at most this many conversations; 0 reads all", ge=0)
        max_characters: int = option(
            0, "drop conversations with more characters; 0 keeps all", ge=0
        )
        reasoning: str = option("keep", REASONING_HELP, choices=REASONING)
        test_fraction: float = option(0.0, TEST_FRACTION_HELP, ge=0, lt=1)

    inputs: dict[str, str] = {}
    output = "dialogues"
    version = "5"

    def estimate(self, config: Config, known: Mapping[str, Any]) -> Mapping[str, float]:
        """At most ``limit`` conversations; unknown without a limit."""
        return {"examples": config.limit} if config.limit else {}

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        rows = hub_rows(ctx.step, config.data_set, config.subset, config.split, config.revision)
        examples = convert_dialogues(
            rows,
            config.format,
            ctx,
            limit=config.limit,
            reasoning=config.reasoning,
            max_characters=config.max_characters,
        )
        return write_dialogues(examples, config.test_fraction, ctx, config.data_set)
