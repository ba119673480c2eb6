"""What became of one page: read or not, kept or dropped and by which rule, edited by which filters.

Works on the folders of the last run (see runs.py), for any step that makes documents or a corpus, by their tables alone
(kinds.py). Columns are searched in place, so a large corpus costs no memory.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.pipeline import history

EXCERPT = 400
MOST_NAMES = 200_000  # URLs that are looked through for near ones


def print_trace(step: str, url: str, overrides: Sequence[str] = ()) -> Iterator[str]:
    """Lines about the page with this URL (or id) in the step and in the documents it was made from. StageError with near names."""
    of_a_run = all(one.startswith(("name=", "recipe=", "store=", "runs=")) for one in overrides)
    made = (
        history.find(step, history.last_run(overrides), "corpus")
        if of_a_run or "/" in step
        else _composed(step, overrides)
    )
    if made.kind not in ("corpus", "documents"):
        raise StageError(
            f"{step} made a {made.kind or 'thing of unknown kind'}; --url tells the fate of a page in a corpus or documents step"
        )
    chain = [one for one in history.lineage(made) if one.kind in ("corpus", "documents")][::-1]
    found = False
    yield f"{url}  in {made.path.name}" + (
        f", made {time.strftime('%Y-%m-%d %H:%M', time.localtime(made.record['finished']))}"
        if "finished" in made.record
        else ""
    )
    for one in chain:
        lines = list(_in(one, url))
        found |= bool(lines)
        yield from (
            f"  {one.name + ':' if i == 0 else '':10}{line}"
            for i, line in enumerate(lines or ["not here"])
        )
    if not found:
        names = list(dict.fromkeys(name for one in chain for name in _names(one)))
        close = [name for name in names if url in name][:3] or difflib.get_close_matches(
            url, names[:5000], 3, 0.5
        )
        raise StageError(
            f"no page has the URL or id {url!r} in {', '.join(one.name for one in chain)}"
            + (
                f"; near: {', '.join(close)}"
                if close
                else f"; {chain[0].name} has {len(names)} different URLs and ids"
            )
        )


def _composed(step: str, overrides: Sequence[str]) -> history.Made:
    """The step as these overrides compose it, which must have been run."""
    from llmstages.pipeline import prepare

    ready = prepare.prepare([*overrides, f"only={step}"])
    plan = ready.find(step)
    if plan.state != "reused":
        raise StageError(
            f"{step} has not been run with this configuration ({plan.why}); run it: llmstages run only={step} {' '.join(overrides)}, "
            f"or ask for what the last run made: llmstages show {step} --url URL"
        )
    return history.Made(step, ready.store.folder(plan.key), ready.store.record(plan.key))


def _in(made: history.Made, url: str) -> Iterator[str]:
    """What one step knows of the page."""
    for row in _rows(made.path / "dropped", url):
        limit = f", needs {row['limit']}" if row["limit"] else ""
        yield f"dropped by {row['rule']}: {row['value']}{limit}"
        yield from _quoted(row["excerpt"])
    kept = list(_rows(made.path / "data", url))
    for row in kept[:1]:
        if "body" in row:
            yield f"read as {row['id']}: {row['media']}, {len(row['body'] or b'')} bytes{', charset ' + row['charset'] if row.get('charset') else ''}"
            continue
        several = f" in {len(kept)} documents" if len(kept) > 1 else ""
        yield f"kept: {sum(len(one['text']) for one in kept)} characters{several}" + (
            f"; would go by {row['verdict']}" if row.get("verdict") else ""
        )
    for row in _rows(made.path / "edits", url):
        yield f"edited by {row['filter']}: {row['count']} places"
    for row in _rows(made.path / "annotations", url):
        sides = [f">= {row['least']:g}"] * (row["least"] is not None) + [f"<= {row['most']:g}"] * (
            row["most"] is not None
        )
        broken = (
            row["least"] is not None
            and row["value"] < row["least"]
            or row["most"] is not None
            and row["value"] > row["most"]
        )
        yield f"{'broken ' if broken else 'held   '}{row['filter']}.{row['rule']}: {row['value']:.4g}, {' and '.join(sides)}"
    if kept and "text" in kept[0]:
        yield from _quoted("\n".join(one["text"] for one in kept[:5]))


def _quoted(text: str) -> Iterator[str]:
    shown = text[:EXCERPT] + ("..." if len(text) > EXCERPT else "")
    yield from (f"  | {line}" for line in shown.split("\n") if line.strip())


def _rows(folder: Path, url: str) -> Iterator[dict[str, Any]]:
    if not folder.is_dir():
        return
    import pyarrow.compute as pc

    table = tables.load(folder)
    where = pc.or_(pc.equal(table.data["url"], url), pc.equal(table.data["id"], url))
    yield from (table[int(index)] for index in pc.indices_nonzero(where).to_pylist())


def _names(made: history.Made) -> list[str]:
    names = []
    for part in ("data", "dropped"):
        if (made.path / part).is_dir():
            names += tables.load(made.path / part).select_columns("url")["url"][:MOST_NAMES]
    return names
