"""Pages and texts from local files: WARC, HTML, text, Markdown, JSON(L), Parquet, CSV.

This stage reads and does nothing else. Extraction and filtering belong to ``corpus``, so that a
new threshold reads no file again. What cannot be read goes to ``dropped/`` with its place and
reason. Input and output stream, so memory does not grow with the input.
"""

from __future__ import annotations

import dataclasses as dc
import time
from collections.abc import Mapping
from pathlib import Path

from llmstages.core.errors import StageError
from llmstages.core.stage import Context, Progress, option
from llmstages.data.readers import MAX_BYTES, Meter, find, read
from llmstages.plugins.pages.output import Output

EVERY = 0.2  # seconds between two moves of the progress bar


class Files:
    """Documents from a file, a folder or a glob, in sorted order."""

    @dc.dataclass(frozen=True)
    class Config:
        path: str = option(
            help="file, folder or glob (in quotes): WARC, HTML, txt, md, jsonl, json, parquet, "
            "csv; also .gz, .zst",
            file=True,
        )
        text_column: str = option(
            "",
            "column of tables that holds the text; empty: the first of text, content, html, body",
        )
        text_block: int = option(
            100_000,
            "cut longer plain text files (books) at line ends into documents of about this many "
            "bytes; 0: never",
            ge=0,
        )
        max_bytes: int = option(
            MAX_BYTES,
            "drop documents of more bytes, unpacked, without ever holding them in memory",
            ge=1,
            le=500_000_000,
        )
        keep_cut: bool = option(
            True,
            "keep pages that are not whole (WARC-Truncated, fewer bytes than announced, a "
            "compressed stream without its end); they are counted either way",
        )
        limit: int = option(0, "read at most this many documents; 0 reads all", ge=0)

    inputs: dict[str, str] = {}
    output = "documents"
    version = "3"

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        files = find(config.path, ctx.step)
        sizes = [file.stat().st_size for file in files]
        without_documents: list[Path] = []
        with (
            Output(ctx, config.keep_cut) as output,
            ctx.progress("reading, MB", round(sum(sizes) / 1e6, 1)) as tick,
        ):
            pace = _Pace(tick, output)
            for file, size in zip(files, sizes, strict=True):
                before = output.documents
                is_limit_reached = _read_file(file, config, output, pace)
                pace.file_done(size)
                if is_limit_reached:
                    ctx.say(
                        f"stopped after {output.documents} documents in {file.name} "
                        f"({ctx.step}.limit); the rest was not read"
                    )
                    break
                if output.documents == before:
                    without_documents.append(file)
            if not output.documents:
                raise StageError(
                    f"{ctx.step}.path={config.path} holds no usable document{output.why()}. "
                    "Check the file, or choose another path"
                )
        if without_documents:
            ctx.say(
                f"{len(without_documents)} of {len(files)} files hold no document "
                f"(first: {without_documents[0].name})"
            )
        return output.report()


def _read_file(file: Path, config: Files.Config, output: Output, pace: _Pace) -> bool:
    """Write the documents of a file; whether the limit of documents is reached."""
    # A document of a text may be as long as two blocks.
    block = min(config.text_block, config.max_bytes // 2)
    meter = Meter()
    for record in read(file, config.text_column, block, config.max_bytes, meter):
        output.add(record)
        pace.show(meter.position)
        if config.limit and output.documents >= config.limit:
            return True
    return False


class _Pace:
    """Progress in stored megabytes, with documents per second.

    Not in files, so that the bar also moves within one large file.
    """

    def __init__(self, tick: Progress, output: Output) -> None:
        self._tick = tick
        self._output = output
        self._start = time.monotonic()
        self._shown_at = self._start
        self._files_done = 0
        self._shown = 0

    def show(self, position: int) -> None:
        """Reading is at this byte of the current file."""
        # Files hold up to millions of documents; drawing a bar for each would take longer.
        now = time.monotonic()
        if now - self._shown_at >= EVERY:
            self._shown_at = now
            self._move(self._files_done + position)

    def file_done(self, size: int) -> None:
        """A file of this size is read."""
        self._files_done += size
        self._move(self._files_done)

    def _move(self, position: int) -> None:
        seconds = max(time.monotonic() - self._start, 1e-3)
        note = f"{self._output.documents} documents, {self._output.documents / seconds:.0f}/s"
        self._tick((position - self._shown) / 1e6, note)
        self._shown = position
