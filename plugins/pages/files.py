"""Pages and texts from local files: WARC, HTML, text, Markdown, JSON(L), Parquet, CSV.

Reading and nothing else: extraction and filtering belong to ``corpus``, so that changing a threshold reads no file
again. What cannot be read goes to ``dropped/`` with its place and reason.
"""

from __future__ import annotations

import dataclasses as dc
from collections import Counter
from collections.abc import Mapping

from llmstages import tables
from llmstages.readers import Bad, find, read
from llmstages.stage import Context, StageError, option

COLUMNS = ("id", "url", "body", "media", "charset")
DROPPED = ("id", "url", "rule", "value", "limit", "excerpt")


class Files:
    """Documents from a file, a folder or a glob, in sorted order."""

    @dc.dataclass(frozen=True)
    class Config:
        path: str = option(help="file, folder or glob (in quotes): WARC, HTML, txt, md, jsonl, json, parquet, csv; also .gz", file=True)
        text_column: str = option("", "column that holds the text in tables; empty: the first of text, content, html, body")
        text_block: int = option(100_000, "cut longer plain text files (books) at line ends into documents of about this many bytes; 0: never")
        limit: int = option(0, "read at most this many documents; 0 reads all")

    inputs: dict[str, str] = {}
    output = "documents"
    version = "1"

    def run(self, config: Config, ctx: Context) -> Mapping[str, float]:
        files = find(config.path, ctx.step)
        rows, dropped = [], []
        with ctx.progress("reading", len(files)) as tick:
            for file in files:
                for found in read(file, config.text_column, config.text_block):
                    if isinstance(found, Bad):
                        dropped.append(found.as_dropped())
                    else:
                        rows.append({name: getattr(found, name) for name in COLUMNS})
                    if config.limit and len(rows) >= config.limit:
                        break
                tick(1, f"{len(rows)} documents")
                if config.limit and len(rows) >= config.limit:
                    ctx.say(f"stopped after {len(rows)} documents in {file.name} ({ctx.step}.limit); the rest was not read")
                    break
        reasons = Counter(row["rule"] for row in dropped)
        if not rows:
            counts = ", ".join(f"{count} {rule}" for rule, count in reasons.items())
            why = f"; left out: {counts}, first: {dropped[0]['id']}: {dropped[0]['value']}" if dropped else ""
            raise StageError(f"{ctx.step}.path={config.path} holds no usable document{why}. Check the file, or choose another path")
        for rule, count in sorted(reasons.items()):
            ctx.say(f"{count} records left out: {rule} (see dropped/)")
        tables.save(rows, ctx.out / "data", COLUMNS)
        tables.save(dropped, ctx.out / "dropped", DROPPED)
        return {"documents": len(rows), "dropped": len(dropped), "damaged": reasons["damaged"],
                "megabytes": round(sum(len(row["body"]) for row in rows) / 1e6, 3)}
