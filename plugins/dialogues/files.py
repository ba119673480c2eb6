"""Conversations from local files in any of the usual formats."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping

from llmstages.core.stage import Context, option
from llmstages.data.dialogues import TEST_FRACTION_HELP
from llmstages.data.formats import DIALOGUES, REASONING, REASONING_HELP
from llmstages.data.readers import TABLES, find
from llmstages.data.readers.examples import convert_dialogues, from_files, write_dialogues


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
    version = "4"

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        examples = convert_dialogues(
            from_files(find(config.path, ctx.step, TABLES)),
            config.format,
            ctx,
            limit=config.limit,
            reasoning=config.reasoning,
            max_characters=config.max_characters,
        )
        return write_dialogues(
            examples, config.test_fraction, ctx, f"{ctx.step}.path={config.path}"
        )
