"""What became of one page: read or not, kept or dropped and by which rule, edited by which filters.

It works on the folders of the last run (pipeline/history.py), for any step that makes documents or
a corpus, by their tables alone (core/artifacts.py). Columns are searched in place, so a large
corpus costs no memory.
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.data import tables
from llmstages.pipeline import history
from llmstages.pipeline.history import StoredArtifact
from llmstages.pipeline.overrides import command, merge

KINDS = ("corpus", "documents")
DROPPING = ("judge", "extract", "group")  # kinds of components that can drop a document
QUOTE = "  | "  # before a line of the page's text
EXCERPT = 400  # characters of a text that are shown
SHOWN_DOCUMENTS = 5  # of a page that was split into several
MAX_NAMES = 200_000  # URLs of a table among which near ones are looked for
MAX_COMPARED = 5000  # URLs that are compared by spelling, which is slow
PAST_RUN_KEYS = ("name=", "recipe=", "store=", "runs=")  # overrides that only choose a past run


def trace_lines(step: str, url: str, overrides: Sequence[str] = ()) -> Iterator[str]:
    """Lines about the page with this URL (or id) in a step and in the documents that it is made of.

    Args:
        step: a step of the run, a key of the store or a folder.
        overrides: choose a past run, or compose the step.

    Raises:
        StageError: no page has this URL; the message lists near ones.
    """
    # Other overrides describe a configuration, which need not be the one that was run last.
    only_choose_run = all(override.startswith(PAST_RUN_KEYS) for override in overrides)
    if only_choose_run or "/" in step:
        artifact = history.find(step, history.last_run(overrides), "corpus")
    else:
        artifact = _composed(step, overrides)
    if artifact.kind not in KINDS:
        raise StageError(
            f"{step} made an artifact of the kind {artifact.kind or 'unknown'}; --url traces a "
            "page through a step that makes a corpus or documents"
        )
    chain = _chain_to(artifact)
    header = f"{url}  in {artifact.path.name}"
    if artifact.finished:
        made_at = time.strftime("%Y-%m-%d %H:%M", time.localtime(artifact.finished))
        header += f", made {made_at}"
    yield header
    if artifact.outdated:
        yield artifact.outdated
    is_known = False
    for source in chain:
        lines = list(lines_of_step(source, url))
        is_known = is_known or bool(lines)
        label = f"{source.name}:"
        for line in lines or ["not here"]:
            yield f"  {label:10}{line}"
            label = ""
    if not is_known:
        raise StageError(_unknown_page(url, chain))


def lines_of_page(corpus: StoredArtifact, url: str) -> Iterator[str]:
    """What a corpus and the steps that it is made of know about a page, without its text."""
    for source in _chain_to(corpus):
        for line in lines_of_step(source, url):
            if not line.startswith(QUOTE):
                yield f"{source.name}: {line}"


def _chain_to(artifact: StoredArtifact) -> list[StoredArtifact]:
    """The steps that pages went through, from the collected pages to the artifact."""
    nearest_first = [source for source in history.lineage(artifact) if source.kind in KINDS]
    return nearest_first[::-1]


def _unknown_page(url: str, chain: Sequence[StoredArtifact]) -> str:
    """The message for a URL that no step knows."""
    names: list[str] = []
    for source in chain:
        names += _urls(source)
    names = list(dict.fromkeys(names))
    near = [name for name in names if url in name][:3]
    if not near:
        near = difflib.get_close_matches(url, names[:MAX_COMPARED], n=3, cutoff=0.5)
    steps = ", ".join(source.name for source in chain)
    message = f"no page has the URL or id {url!r} in {steps}; "
    if near:
        return message + f"near: {', '.join(near)}"
    return message + f"{chain[0].name} has {len(names)} different URLs and ids"


def _composed(step: str, overrides: Sequence[str]) -> StoredArtifact:
    """The step as these overrides compose it.

    Raises:
        StageError: it has not been run.
    """
    from llmstages.pipeline import prepare

    prepared = prepare.prepare(merge(overrides, f"only={step}"))
    plan = prepared.find(step)
    if plan.state != "reused":
        raise StageError(
            f"{step} has not been run with this configuration ({plan.why}); run it: "
            f"{command('run', overrides, f'only={step}')}, "
            f"or ask for what the last run made: llmstages show {step} --url URL"
        )
    return StoredArtifact(step, prepared.store.folder(plan.key), prepared.store.record(plan.key))


def lines_of_step(step: StoredArtifact, url: str) -> Iterator[str]:
    """What one step knows about the page."""
    for row in _rows(step.path / "dropped", url):
        limit = f", needs {row['limit']}" if row["limit"] else ""
        yield f"dropped by {row['rule']}: {row['value']}{limit}"
        yield from _quoted(row["excerpt"])
    kept = list(_rows(step.path / "data", url))
    if kept:
        yield _read_line(kept[0]) if "body" in kept[0] else _kept_line(kept)
        passed = _filters_passed(step.path)
        if passed:
            yield f"passed {', '.join(passed)}"
    for row in _rows(step.path / "edits", url):
        yield f"edited by {row['filter']}: {row['count']} places"
    for row in _rows(step.path / "annotations", url):
        yield _annotation_line(row)
    if kept and "text" in kept[0]:
        yield from _quoted("\n".join(row["text"] for row in kept[:SHOWN_DOCUMENTS]))


def _read_line(row: dict[str, Any]) -> str:
    """A page as it was collected."""
    line = f"read as {row['id']}: {row['media']}, {len(row['body'] or b'')} bytes"
    if row.get("charset"):
        line += f", charset {row['charset']}"
    return line


def _kept_line(rows: Sequence[dict[str, Any]]) -> str:
    """The documents of a page that are in the corpus."""
    characters = sum(len(row["text"]) for row in rows)
    line = f"kept: {characters} characters"
    if len(rows) > 1:
        line += f" in {len(rows)} documents"
    verdict = rows[0].get("verdict")
    if verdict:
        line += f"; would be dropped by {verdict}"
    return line


def _filters_passed(folder: Path) -> list[str]:
    """The filters that each kept document went through, in their order.

    Those that edit or measure drop nothing; what they did to a page is in its other lines.
    """
    if not (folder / "funnel.json").is_file():
        return []
    rows = json.loads((folder / "funnel.json").read_text())
    judges = [row for row in rows if row["kind"] in DROPPING and "would_drop" not in row]
    return list(dict.fromkeys(row["rule"].partition(".")[0] for row in judges))


def _annotation_line(row: dict[str, Any]) -> str:
    """The value of one rule of a filter, and whether it keeps within its limits."""
    value, least, most = row["value"], row["least"], row["most"]
    limits = []
    is_broken = False
    if least is not None:
        limits.append(f">= {least:g}")
        is_broken = value < least
    if most is not None:
        limits.append(f"<= {most:g}")
        is_broken = is_broken or value > most
    state = "broken" if is_broken else "held"
    return f"{state:7}{row['filter']}.{row['rule']}: {value:.4g}, {' and '.join(limits)}"


def _quoted(text: str) -> Iterator[str]:
    shown = text[:EXCERPT]
    if len(text) > EXCERPT:
        shown += "..."
    for line in shown.split("\n"):
        if line.strip():
            yield f"{QUOTE}{line}"


def _rows(folder: Path, url: str) -> Iterator[dict[str, Any]]:
    """The rows of a table with this URL or id; none if the step has no such table."""
    if not folder.is_dir():
        return
    import pyarrow.compute as pc

    functions: Any = pc  # made at run time, so type checkers do not see them
    table = tables.load(folder)
    has_url = functions.equal(table.data["url"], url)
    has_id = functions.equal(table.data["id"], url)
    for index in functions.indices_nonzero(functions.or_(has_url, has_id)).to_pylist():
        yield table[int(index)]


def _urls(step: StoredArtifact) -> list[str]:
    urls: list[str] = []
    for name in ("data", "dropped"):
        folder = step.path / name
        if folder.is_dir():
            urls += tables.load(folder).select_columns("url")["url"][:MAX_NAMES]
    return urls
