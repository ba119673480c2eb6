"""Texts from a data set on the Hugging Face Hub (FineWeb, C4, Wikipedia ...), streamed. They come as plain text."""

from __future__ import annotations

import dataclasses as dc
from collections.abc import Mapping

from llmstages import tables
from llmstages.readers import Bad, clean
from llmstages.readers.hub import hub_rows
from llmstages.stage import Context, StageError, option

COLUMNS = ("id", "url", "body", "media", "charset")
DROPPED = ("id", "url", "rule", "value", "limit", "excerpt")


class Hub:
    """The first ``limit`` texts of a data set, in its order."""

    @dc.dataclass(frozen=True)
    class Config:
        data_set: str = option("", "OWNER/NAME on the Hub, e.g. HuggingFaceFW/fineweb")
        subset: str = option("", "configuration of the data set, e.g. sample-10BT; empty takes its default")
        split: str = option("train", "split of the data set")
        revision: str = option("main", "branch, tag or commit; name a commit for a result that can be repeated")
        text_column: str = option("text", "column that holds the text")
        limit: int = option(10_000, "read at most this many documents; 0 reads all")

    inputs: dict[str, str] = {}
    output = "documents"
    version = "1"

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        kept, dropped = [], []
        with ctx.progress("downloading", config.limit or None) as tick:
            for position, row in hub_rows(ctx.step, config.data_set, config.subset, config.split, config.revision):
                if config.text_column not in row:
                    raise StageError(f"{config.data_set} has no column {config.text_column!r}; it has {', '.join(row)}. "
                                     f"Choose one: {ctx.step}.text_column=NAME")
                text = row[config.text_column]
                url = str(row.get("url") or f"hub:{position}")
                if not isinstance(text, str) or not text.strip():
                    dropped.append(Bad(position, "no text", "empty", url).as_dropped())
                    continue
                kept.append({"id": str(row.get("id") or position), "url": url, "body": clean(text).encode(),
                             "media": "text/plain", "charset": "utf-8"})
                tick(1)
                if config.limit and len(kept) >= config.limit:
                    break
        if not kept:
            raise StageError(f"{config.data_set} holds no text in the column {config.text_column!r} of split {config.split}; choose others")
        tables.save(kept, ctx.out / "data", COLUMNS)
        tables.save(dropped, ctx.out / "dropped", DROPPED)
        return {"documents": len(kept), "dropped": len(dropped), "megabytes": round(sum(len(row["body"]) for row in kept) / 1e6, 3)}
