"""Problems with answers that can be checked, from local files: GSM8K, or rows with a question and an answer."""

from __future__ import annotations

import dataclasses as dc
import hashlib
from collections.abc import Mapping

from llmstages.core.stage import Context, option
from llmstages.data.formats import problem
from llmstages.data.readers import TABLES, find
from llmstages.data.readers.examples import convert, from_files, write


class Files:
    """Questions with their answers, from JSON(L), Parquet or CSV; a worked answer (GSM8K) stays in ``solution``."""

    @dc.dataclass(frozen=True)
    class Config:
        path: str = option(
            help="file, folder or glob (in quotes): json, jsonl, parquet, csv; also .gz", file=True
        )
        task: str = option(
            "", "task name for all rows; empty: the row's own, or gsm8k or questions"
        )
        limit: int = option(0, "read at most this many problems; 0 reads all")
        test_fraction: float = option(
            0.1,
            "share of the problems kept from practice for evaluation (role = test)",
            renamed_from="test_share",
        )
        max_characters: int = option(
            0, "drop problems with longer questions; unit: characters; 0 keeps all"
        )

    inputs: dict[str, str] = {}
    output = "problems"
    version = "1"

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        found = convert(
            from_files(find(config.path, ctx.step, TABLES)),
            lambda row, left_out: problem(row, config.task),
            ctx,
            limit=config.limit,
            max_characters=config.max_characters,
        )
        for row in found.kept:
            place = (
                int(hashlib.sha256(row["prompt"][-1]["content"].encode()).hexdigest(), 16) % 1000
            )
            row["role"] = "test" if place < 1000 * config.test_fraction else "train"
        return write(found, ctx, f"{ctx.step}.path={config.path}")
