"""The interpreter CPython, in a process that is confined before it reads the program.

Two ways, the first that works on the machine: bubblewrap (namespaces of its own: no network, no
other process, no file but the Python installation), or Landlock (no file but those) together with
seccomp (no socket, no new process, no signal). Resource limits hold in both, and bubblewrap gets
the other two besides, where they work. Before the first program a trial proves that the protection
holds; where it does not, the interpreter is refused. There is no unprotected way.

Each program gets a fresh process without environment variables. What comes back is text.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmstages.core.errors import StageError
from llmstages.plugins.tools.interpreters import Limits, Outcome

CHILD = Path(__file__).with_name("confined.py")
CHILD_IN_SANDBOX = "/confined.py"
PATIENCE = 3  # times its CPU time that a program may take in all
START_SECONDS = 10.0  # for the process to start and to confine itself
BYTES_PER_CHARACTER = 4
REPORT_BYTES = 1 << 20
ENVIRONMENT = {"PYTHONHASHSEED": "0"}  # sets are written in the same order in every call
ENDED_BY = {
    signal.SIGPROF: "TimeoutError: the program took more CPU time than it may",
    signal.SIGXCPU: "TimeoutError: the program took more CPU time than it may",
    signal.SIGKILL: "the program was killed at its limits",
    signal.SIGSEGV: "the program crashed the interpreter",
}
# Attempts that no protection may let through. Each line that is printed is a hole.
TRIAL = """
import os, socket
def attempt(name, act):
    try:
        act()
    except (OSError, AttributeError, RuntimeError):
        return
    print(name)
attempt("reads a file", lambda: open({secret!r}).read())
attempt("writes a file", lambda: open({target!r}, "w").write("x"))
attempt("connects", lambda: socket.create_connection(("127.0.0.1", {port}), 1))
attempt("signals its parent", lambda: os.kill({parent}, 0))
attempt("sees the environment of its parent", lambda: open("/proc/{parent}/environ").read())
6 * 7
"""


class CPython:
    """CPython in a confined process."""

    def __init__(self, limits: Limits, ways: Sequence[str] = ("bubblewrap", "landlock")) -> None:
        """ways: those that are tried, in this order."""
        self.limits = limits
        self.ways = ways
        self.way = ""

    def start(self) -> None:
        """Find a way that holds."""
        reasons = []
        for way in self.ways:
            if self.way:
                return
            reason = self._try(way)
            if reason:
                reasons.append(f"{way}: {reason}")
            else:
                self.way = way
        if not self.way:
            raise StageError(
                "the tool python with engine=cpython cannot be protected on this machine, so no "
                f"program is run ({'; '.join(reasons)}). Install bubblewrap, or use engine=monty"
            )

    def stop(self) -> None:
        """Nothing is left running."""

    def run(self, program: str, earlier: Sequence[str] = ()) -> Outcome:
        """Run a program after earlier ones, whose output is not shown again."""
        self.start()
        return self._run(self.way, program, earlier)

    def _try(self, way: str) -> str:
        """Why a way does not hold here, or ""."""
        if way == "bubblewrap" and not shutil.which("bwrap"):
            return "not installed"
        with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as own:
            secret = Path(folder, "secret")
            secret.write_text("readable", encoding="utf-8")
            trial = TRIAL.format(
                secret=str(secret),
                target=str(Path(folder, "target")),
                port=own.getsockname()[1],
                parent=os.getpid(),
            )
            outcome = self._run(way, trial, ())
        if outcome.error or outcome.value != "42":
            return outcome.error or "the trial program gave no result"
        holes = outcome.printed.split("\n")[:-1]
        return f"it lets a program through that {', '.join(holes)}" if holes else ""

    def _run(self, way: str, program: str, earlier: Sequence[str]) -> Outcome:
        report_out, report_in = os.pipe()
        command = [*_wrapper(way), *_interpreter(way), str(report_in)]
        settings = {
            "way": way,
            "seconds": self.limits.seconds,
            "memory_mb": self.limits.memory_mb,
            "max_output": self.limits.max_output,
            "readable": _readable(),
        }
        job = json.dumps({**settings, "earlier": list(earlier), "program": program})
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                pass_fds=(report_in,),
                start_new_session=True,
            )
        finally:
            os.close(report_in)
        with process, os.fdopen(report_out, "rb") as report:
            try:
                printed, told = self._talk(process, job.encode(), report)
            finally:
                _kill_group(process)
        return self._outcome(process.returncode, printed, told)

    def _talk(self, process: Any, job: bytes, report: Any) -> tuple[bytes, bytes]:
        """Hand over the job; (output, report) up to their limits, or until time is up."""
        deadline = time.monotonic() + START_SECONDS
        # It may end before it has read the job; its exit status says why.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(job)
            process.stdin.close()
        kept = {process.stdout: b"", report: b""}
        most = {process.stdout: self.limits.max_output * BYTES_PER_CHARACTER, report: REPORT_BYTES}
        with selectors.DefaultSelector() as selector:
            for stream in kept:
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map() and time.monotonic() < deadline:
                for key, _ in selector.select(deadline - time.monotonic()):
                    stream = key.fileobj
                    part = os.read(key.fd, 1 << 16)
                    if not part:
                        selector.unregister(stream)
                    if stream is report and not kept[report]:
                        # The program begins now.
                        deadline = time.monotonic() + PATIENCE * self.limits.seconds
                    # More is read and thrown away: a full pipe would stop the program.
                    kept[stream] += part[: most[stream] - len(kept[stream])]
        return kept[process.stdout], kept[report]

    def _outcome(self, code: int, printed: bytes, told: bytes) -> Outcome:
        text = printed.decode("utf-8", "replace")[: self.limits.max_output]
        try:
            report = json.loads(told)
            return Outcome(text, str(report["value"]), str(report["error"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            number = -code if code < 0 else code - 128  # bubblewrap passes on 128 + signal
            known = {int(one): reason for one, reason in ENDED_BY.items()}
            reason = known.get(number, f"the program ended its process with status {code}")
            return Outcome(text, "", reason)


def _kill_group(process: Any) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _interpreter(way: str) -> list[str]:
    # -P -s -S: no folder of the program, of the user or of installed packages is searched.
    script = CHILD_IN_SANDBOX if way == "bubblewrap" else str(CHILD)
    return [os.path.realpath(sys.executable), "-P", "-s", "-S", script]


def _readable() -> list[str]:
    """Folders that a program may read: Python's own modules, and the libraries they load."""
    paths = sysconfig.get_paths()
    folders = {paths["stdlib"], paths["platstdlib"], "/lib", "/lib64", "/usr/lib", "/usr/lib64"}
    folders.add(str(Path(sys.base_prefix, "lib")))
    return sorted(folder for folder in folders if Path(folder).is_dir())


def _wrapper(way: str) -> list[str]:
    """The command before the interpreter."""
    if way != "bubblewrap":
        return []
    prefix = str(Path(sys.base_prefix).resolve())
    binds = ["--ro-bind", "/usr", "/usr", "--ro-bind", prefix, prefix]
    for folder in ("/lib", "/lib64"):
        if Path(folder).is_symlink():
            binds += ["--symlink", str(Path(folder).readlink()), folder]
        else:
            binds += ["--ro-bind-try", folder, folder]
    return [
        *("bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"),
        *("--setenv", "PYTHONHASHSEED", "0", "--uid", "65534", "--gid", "65534"),
        *("--cap-drop", "ALL", *binds, "--ro-bind", str(CHILD), CHILD_IN_SANDBOX),
        *("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp", "--"),
    ]
