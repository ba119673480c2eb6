"""Pages and texts from local files: WARC, HTML, text, Markdown, JSON(L), Parquet, CSV.

Reading and nothing else: extraction and filtering belong to ``corpus``, so that changing a threshold reads no file
again. What cannot be read goes to ``dropped/`` with its place and reason. Input and output stream, so memory does not
grow with the input.
"""

from __future__ import annotations

import dataclasses as dc
import time
from collections.abc import Mapping

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, Progress, option
from llmstages.data.readers import MAX_BYTES, Meter, Record, find, read
from llmstages.plugins.pages.output import Output

EVERY = 0.2  # seconds between two moves of the progress bar


class Files:
    """Documents from a file, a folder or a glob, in sorted order."""

    @dc.dataclass(frozen=True)
    class Config:
        path: str = option(
            help="file, folder or glob (in quotes): WARC, HTML, txt, md, jsonl, json, parquet, csv; also .gz, .zst",
            file=True,
        )
        text_column: str = option(
            "",
            "column that holds the text in tables; empty: the first of text, content, html, body",
        )
        text_block: int = option(
            100_000,
            "cut longer plain text files (books) at line ends into documents of about this many bytes; 0: never",
        )
        max_bytes: int = option(
            MAX_BYTES, "drop documents of more bytes, unpacked, without ever holding them in memory"
        )
        limit: int = option(0, "read at most this many documents; 0 reads all")

        def __post_init__(self) -> None:
            if not 1 <= self.max_bytes <= 500_000_000:
                raise ValueError(
                    f"max_bytes={self.max_bytes}: a document may have 1 to 500000000 bytes"
                )
            if min(self.text_block, self.limit) < 0:
                raise ValueError(
                    f"text_block={self.text_block}, limit={self.limit}: neither may be negative (0 turns it off)"
                )

    inputs: dict[str, str] = {}
    output = "documents"
    version = "2"

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        files = find(config.path, ctx.step)
        block = min(config.text_block, config.max_bytes // 2)
        without = []
        sizes = [file.stat().st_size for file in files]
        with Output(ctx) as output, ctx.progress("reading, MB", round(sum(sizes) / 1e6, 1)) as tick:
            pace = _Pace(tick, output)
            for file, size in zip(files, sizes, strict=True):
                before, meter = output.documents, Meter()
                for found in read(file, config.text_column, block, config.max_bytes, meter):
                    output.add(found)
                    pace.show(meter.at)
                    if (
                        config.limit
                        and output.documents >= config.limit
                        and isinstance(found, Record)
                    ):
                        break
                pace.done(size)
                if config.limit and output.documents >= config.limit:
                    ctx.say(
                        f"stopped after {output.documents} documents in {file.name} ({ctx.step}.limit); the rest was not read"
                    )
                    break
                if output.documents == before:
                    without.append(file)
            if not output.documents:
                raise StageError(
                    f"{ctx.step}.path={config.path} holds no usable document{output.why()}. "
                    "Check the file, or choose another path"
                )
        if without:
            ctx.say(
                f"{len(without)} of {len(files)} files hold no document (first: {without[0].name})"
            )
        return output.report()


class _Pace:
    """Progress in stored megabytes, so that one large file moves too, with documents a second."""

    def __init__(self, tick: Progress, output: Output) -> None:
        self._tick, self._output = tick, output
        self._start = self._shown_at = time.monotonic()
        self._before = self._shown = 0

    def show(self, at: int) -> None:
        """Reading is at this byte of the current file."""
        now = time.monotonic()
        if now - self._shown_at >= EVERY:
            self._shown_at = now
            self._move(self._before + at)

    def done(self, size: int) -> None:
        """A file of this size is read."""
        self._before += size
        self._move(self._before)

    def _move(self, at: int) -> None:
        rate = self._output.documents / max(time.monotonic() - self._start, 1e-3)
        self._tick((at - self._shown) / 1e6, f"{self._output.documents} documents, {rate:.0f}/s")
        self._shown = at
