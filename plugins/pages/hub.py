"""Plain texts from a data set on the Hugging Face Hub (FineWeb, C4, Wikipedia, ...), streamed."""

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
    """The first ``limit`` texts of a data set in its order, or of a local folder of data files."""

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
        max_bytes: int = option(MAX_BYTES, "drop documents of more bytes", ge=1, le=500_000_000)
        limit: int = option(10_000, "read at most this many documents; 0 reads all", ge=0)

    inputs: dict[str, str] = {}
    output = "documents"
    version = "2"

    def estimate(self, config: Config, known: Mapping[str, Any]) -> Mapping[str, float]:
        """At most ``limit`` documents; unknown without a limit."""
        return {"documents": config.limit} if config.limit else {}

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        start = time.monotonic()
        rows = hub_rows(ctx.step, config.data_set, config.subset, config.split, config.revision)
        with Output(ctx) as output, ctx.progress("downloading", config.limit or None) as tick:
            for position, row in rows:
                if config.text_column not in row:
                    raise StageError(
                        f"{config.data_set} has no column {config.text_column!r}; "
                        f"it has {', '.join(row)}. Choose one: {ctx.step}.text_column=NAME"
                    )
                document = _document(position, row, config)
                output.add(document)
                # Progress and limit count documents, not rows.
                if isinstance(document, Rejected):
                    continue
                tick(1, _pace(output, start))
                if config.limit and output.documents >= config.limit:
                    break
            if not output.documents:
                raise StageError(
                    f"{config.data_set} holds no text in the column {config.text_column!r} "
                    f"of split {config.split}{output.why()}; choose others"
                )
        return output.report()


def _pace(output: Output, start: float) -> str:
    """The note beside the progress bar, at every hundredth document."""
    if output.documents % 100:
        return ""
    seconds = max(time.monotonic() - start, 1e-3)
    return f"{output.bytes / 1e6:.0f} MB, {output.documents / seconds:.0f} documents/s"


def _document(position: str, row: Mapping[str, Any], config: Hub.Config) -> Record | Rejected:
    """The text of a row as a document, or why it has none."""
    text = row[config.text_column]
    url = clean(str(row.get("url") or f"hub:{position}"))
    if text is None:
        return Rejected(position, f"the text in {config.text_column!r} is null", "null_text", url)
    if not isinstance(text, str) or not text.strip():
        return Rejected(position, "no text", "empty", url)
    text, replaced = scrub(text)
    body = text.encode()
    if len(body) > config.max_bytes:
        return too_large(position, "a text", config.max_bytes, url)
    return Record(clean(str(row.get("id") or position)), url, body, "text/plain", "utf-8", replaced)
