"""Conversations from local files in any of the usual formats."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Mapping
from typing import Any

from llmstages.core.stage import Context, option
from llmstages.data import planned_tokens
from llmstages.data.dialogues import TEST_FRACTION_HELP, mark_test_rows
from llmstages.data.formats import DIALOGUES, REASONING, REASONING_HELP
from llmstages.data.readers import TABLES, find
from llmstages.data.readers.examples import (
    Examples,
    convert_dialogues,
    from_files,
    write_dialogues,
)


class Files:
    """Conversations from JSON(L), Parquet or CSV.

    The rows may be messages, ShareGPT, Alpaca, prompt and completion, question and answer, HH
    texts or OpenAssistant trees.
    """

    @dc.dataclass(frozen=True)
    class Config:
        path: str = option(
            help="file, folder or glob (in quotes): json, jsonl, parquet, csv; also .gz", file=True
        )
        format: str = option(
            "detect",
            "format of the rows; detect looks at each row's fields",
            choices=("detect", *DIALOGUES),
        )
        limit: int = option(0, "read at most this many conversations; 0 reads all", ge=0)
        max_characters: int = option(
            0, "drop conversations with more characters; 0 keeps all", ge=0
        )
        reasoning: str = option("keep", REASONING_HELP, choices=REASONING)
        test_fraction: float = option(0.0, TEST_FRACTION_HELP, ge=0, lt=1)

    inputs: dict[str, str] = {}
    output = "dialogues"
    version = "5"

    def estimate(self, config: Config, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """The number of dialogues to train on, and a sample of them to count tokens with."""

        def without_tests(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if not config.test_fraction or not rows:
                return rows
            mark_test_rows(rows, config.test_fraction)
            return [row for row in rows if row["split"] != "test"]

        return planned_tokens.facts_of_files(
            config.path, lambda rows, ctx: self._convert(rows, config, ctx), without_tests
        )

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        rows = from_files(find(config.path, ctx.step, TABLES))
        examples = self._convert(rows, config, ctx)
        return write_dialogues(
            examples, config.test_fraction, ctx, f"{ctx.step}.path={config.path}"
        )

    def _convert(self, rows: Iterable[Any], config: Config, ctx: Context) -> Examples:
        return convert_dialogues(
            rows,
            config.format,
            ctx,
            limit=config.limit,
            reasoning=config.reasoning,
            max_characters=config.max_characters,
        )
