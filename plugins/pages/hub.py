"""Texts from a data set on the Hugging Face Hub (FineWeb, C4, Wikipedia ...), streamed. They come as plain text."""

from __future__ import annotations

import dataclasses as dc
import time
from collections.abc import Mapping
from typing import Any

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, option
from llmstages.data.readers import MAX_BYTES, Record, Rejected, clean, scrub, too_large
from llmstages.data.readers.hub import hub_rows
from llmstages.plugins.pages.output import Output


class Hub:
    """The first ``limit`` texts of a data set, in its order. A local folder of data files is a data set as well."""

    @dc.dataclass(frozen=True)
    class Config:
        data_set: str = option(
            "", "OWNER/NAME on the Hub, e.g. HuggingFaceFW/fineweb, or a local folder of data files"
        )
        subset: str = option(
            "", "configuration of the data set, e.g. sample-10BT; empty takes its default"
        )
        split: str = option("train", "split of the data set")
        revision: str = option(
            "main", "branch, tag or commit; name a commit for a result that can be repeated"
        )
        text_column: str = option("text", "column that holds the text")
        max_bytes: int = option(MAX_BYTES, "drop documents of more bytes")
        limit: int = option(10_000, "read at most this many documents; 0 reads all")

        def __post_init__(self) -> None:
            if not 1 <= self.max_bytes <= 500_000_000:
                raise ValueError(
                    f"max_bytes={self.max_bytes}: a document may have 1 to 500000000 bytes"
                )

    inputs: dict[str, str] = {}
    output = "documents"
    version = "2"

    def estimate(self, config: Config, known: Mapping[str, Any]) -> Mapping[str, float]:
        """At most as many as are asked for."""
        return {"documents": config.limit} if config.limit else {}

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        start = time.monotonic()
        with Output(ctx) as output, ctx.progress("downloading", config.limit or None) as tick:
            for position, row in hub_rows(
                ctx.step, config.data_set, config.subset, config.split, config.revision
            ):
                if config.text_column not in row:
                    raise StageError(
                        f"{config.data_set} has no column {config.text_column!r}; it has {', '.join(row)}. "
                        f"Choose one: {ctx.step}.text_column=NAME"
                    )
                found = _document(position, row, config)
                output.add(found)
                if isinstance(found, Rejected):
                    continue
                tick(
                    1,
                    f"{output.bytes / 1e6:.0f} MB, {output.documents / max(time.monotonic() - start, 1e-3):.0f} documents/s"
                    if output.documents % 100 == 0
                    else "",
                )
                if config.limit and output.documents >= config.limit:
                    break
            if not output.documents:
                raise StageError(
                    f"{config.data_set} holds no text in the column {config.text_column!r} of split {config.split}"
                    f"{output.why()}; choose others"
                )
        return output.report()


def _document(position: str, row: Mapping[str, Any], config: Hub.Config) -> Record | Rejected:
    text, url = row[config.text_column], clean(str(row.get("url") or f"hub:{position}"))
    if text is None:
        return Rejected(position, f"the text in {config.text_column!r} is null", "null_text", url)
    if not isinstance(text, str) or not text.strip():
        return Rejected(position, "no text", "empty", url)
    text, replaced = scrub(text)
    body = text.encode()
    if len(body) > config.max_bytes:
        return too_large(position, "a text", config.max_bytes, url)
    return Record(clean(str(row.get("id") or position)), url, body, "text/plain", "utf-8", replaced)
