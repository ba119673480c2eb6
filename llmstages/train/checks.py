"""Checks before the first update: what would silently train something else is refused here.

They answer what users of other tools suffer from: masks that cover everything or nothing, end
tokens outside the loss, two BOS tokens, silent truncation, templates that differ between training
and use.

A check has an id (``bos_count``), which code, configurations and ``checks.json`` use, and a title,
which people read. A check that fails stops the step unless ``allow_failed_checks`` of the step
names its id. The table in docs/sft.md lists every id. This module defines what a check is and what
happens when one fails; the checks themselves are in:

- ``dialogue_checks``: the messages, before they are rendered;
- ``token_checks``: token ids and loss mask of the rendered rows;
- ``template_checks``: the chat template together with the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from llmstages.core.errors import StageError, near
from llmstages.core.stage import Context
from llmstages.data import tables
from llmstages.train import distributed

FILE = "checks.json"  # in the artifact of every training step
NAMED_ROWS = 5  # failing rows that a check names


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        id: the identifier in snake_case, unique within a step.
        title: what ``value`` measures, for people.
        value: the measured number: a count, a share between 0 and 1, or a length in tokens.
        limit: the number that ``value`` is compared with.
        passed: whether the check is fulfilled.
        fix: why a failure matters and what to do about it.
        rows: names of the first failing rows.
        allowed: whether the step's configuration lets it fail.
    """

    id: str
    title: str
    value: float
    limit: float
    passed: bool
    fix: str
    rows: tuple[str, ...] = ()
    allowed: bool = False


def check_value(
    id: str,
    title: str,
    *,
    value: float,
    limit: float,
    passed: bool,
    fix: str,
    rows: Iterable[str] = (),
) -> Check:
    """A check with its value rounded and only the first failing rows named."""
    # A long list of rows would bury the reason.
    named = tuple(rows)[:NAMED_ROWS]
    return Check(id, title, round(float(value), 6), limit, bool(passed), fix, named)


def check_none(id: str, title: str, rows: Sequence[str], fix: str) -> Check:
    """A check that passes if no row fails; its value is the number of failing rows."""
    return check_value(id, title, value=len(rows), limit=0, passed=not rows, fix=fix, rows=rows)


def check_share(
    id: str,
    title: str,
    rows: Sequence[str],
    total: int,
    *,
    limit: float,
    fix: str,
    min_total: int = 0,
) -> Check:
    """A check that passes if at most the share ``limit`` of ``total`` rows fails.

    With fewer than ``min_total`` rows a share means little, so the check passes.
    """
    passed = total < min_total or len(rows) <= limit * total
    value = len(rows) / max(total, 1)
    return check_value(id, title, value=value, limit=limit, passed=passed, fix=fix, rows=rows)


def enforce(checks: Sequence[Check], ctx: Context, allow_failed_checks: Sequence[str] = ()) -> None:
    """Write checks.json and stop the step if a check failed that is not allowed to.

    Raises:
        StageError: names every such check with its rows and its fix, or an id in
            ``allow_failed_checks`` that no check of the step has.
    """
    _require_known(allow_failed_checks, checks, ctx)
    decided = [replace(check, allowed=check.id in allow_failed_checks) for check in checks]
    # Written before a failure is raised, so that the file explains it too.
    if distributed.first_process():
        tables.write_json(ctx.out / FILE, [asdict(check) for check in decided])
    blocking = []
    for check in decided:
        if check.passed:
            continue
        if check.allowed:
            ctx.say(f"{ctx.step}: {describe(check)}; allowed by {ctx.step}.allow_failed_checks")
        else:
            blocking.append(check)
    if blocking:
        reasons = "\n".join(f"  {describe(check)}: {check.fix}" for check in blocking)
        raise StageError(
            f"step {ctx.step!r} was not started, because these checks of its data failed:\n"
            f"{reasons}\nLook at the rows: llmstages inspect {ctx.step}. "
            f"To train all the same: {allowing(blocking, ctx.step)}"
        )


def _require_known(ids: Sequence[str], checks: Sequence[Check], ctx: Context) -> None:
    known = [check.id for check in checks]
    for id in ids:
        if id not in known:
            raise StageError(
                f"{ctx.step}.allow_failed_checks contains {id!r}, which is not the id of a check "
                f"of this step.{near(id, known)} Its checks: {', '.join(known)}"
            )


def describe(check: Check) -> str:
    """One line about a check: id, title, value, limit and failing rows."""
    line = f"{check.id} ({check.title}): {check.value:g}, limit {check.limit:g}"
    if not check.rows:
        return line
    more = ", ..." if check.value > len(check.rows) else ""
    return f"{line} ({', '.join(check.rows)}{more})"


def allowing(failed: Iterable[Check], step: str) -> str:
    """The override that lets these checks of a step fail."""
    return f"{step}.allow_failed_checks=[{','.join(check.id for check in failed)}]"
