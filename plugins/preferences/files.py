"""Preference pairs from local files: HH texts, a prompt with two answers, two conversations."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Iterable, Mapping
from typing import Any

from llmstages.core.stage import Context, option
from llmstages.data import planned_tokens
from llmstages.data.formats import preference
from llmstages.data.readers import TABLES, find
from llmstages.data.readers.examples import Examples, convert, from_files, write


class Files:
    """Pairs of a chosen and a rejected answer from JSON(L), Parquet or CSV.

    The fields of a row decide its format.
    """

    @dc.dataclass(frozen=True)
    class Config:
        path: str = option(
            help="file, folder or glob (in quotes): json, jsonl, parquet, csv; also .gz", file=True
        )
        limit: int = option(0, "read at most this many pairs; 0 reads all", ge=0)
        max_characters: int = option(
            0, "drop pairs with more characters in all their messages; 0 keeps all", ge=0
        )

    inputs: dict[str, str] = {}
    output = "preferences"
    version = "4"

    def estimate(self, config: Config, known: Mapping[str, Any]) -> Mapping[str, Any]:
        """The number of pairs, and a sample of them to count tokens with."""
        return planned_tokens.facts_of_files(
            config.path, lambda rows, ctx: self._convert(rows, config, ctx)
        )

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        rows = from_files(find(config.path, ctx.step, TABLES))
        examples = self._convert(rows, config, ctx)
        return write(examples, ctx, f"{ctx.step}.path={config.path}")

    def _convert(self, rows: Iterable[Any], config: Config, ctx: Context) -> Examples:
        return convert(
            rows, preference, ctx, limit=config.limit, max_characters=config.max_characters
        )
