"""A process that compares formulas with math-verify until its input ends.

In goes a line of JSON, ``[wanted, reply]``, out comes a line: true, false, or null where
math-verify cannot read the wanted formula. Some formulas take forever (``9^{9^{9^9}}``), and
math-verify's own time limit needs the main thread and five seconds for each. So the process is
killed at a limit of its own CPU time, and started again by the one that asked.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

from llmstages.core.limits import limit_memory, limit_time

MEGABYTES = 2000  # that a formula may take
DIGITS = 12  # that must agree: at math-verify's own 6, 3.1415927 is pi


def main() -> None:
    """Serve lines from standard input; argument: CPU seconds for each reply."""
    seconds = float(sys.argv[1])
    # Answers go to a private copy of standard output, which prints of libraries do not reach.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    verify_pair("1", "1")  # the first use of sympy takes as long as a thousand others
    limit_memory(MEGABYTES)
    _send(out, "ready")
    for line in sys.stdin:
        limit_time(seconds)
        verdict = verify_pair(*json.loads(line))
        limit_time(0)
        _send(out, verdict)


def verify_pair(wanted: str, reply: str) -> bool | None:
    """Whether a reply equals a formula; None if the formula cannot be read."""
    from math_verify import parse, verify

    # The order matters: an inequality that is wanted may be given as an interval, not the reverse.
    try:
        gold = parse(wanted, parsing_timeout=0)
    except (Exception, RecursionError):  # sympy raises anything at malformed formulas
        return None
    if not any(not isinstance(part, str) for part in gold):
        return None
    try:
        given = parse(reply, parsing_timeout=0)
        return bool(verify(gold, given, float_rounding=DIGITS, timeout_seconds=0))
    except (Exception, RecursionError):
        return False


def _send(out: Any, value: Any) -> None:
    out.write(json.dumps(value) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
