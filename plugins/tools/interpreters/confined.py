"""The process in which engine=cpython runs a program: it confines itself, then reads and runs it.

It is started as a script and uses nothing but the standard library, since the process sees neither
this package nor the folder of its parent. Layers, from resource limits to system calls:

- resource limits (setrlimit): memory, CPU time, no core dump, nothing written to files;
- Landlock (kernel >= 5.13, ``landlock(7)``): files outside Python's own folders are not there;
- seccomp (``seccomp(2)``): the system calls of ALLOWED and no others, on x86-64.

bubblewrap, where it is used, stands around all of it. Under ``way=landlock`` a layer that cannot be
had ends the process before the program is read.
"""

from __future__ import annotations

import ast
import ctypes
import json
import os
import platform
import random
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION = 1
LANDLOCK_RULE_PATH_BENEATH = 1
READ_FILE, READ_DIR = 1 << 2, 1 << 3
# Rights on files that each version of the interface knows (bits), all of which are taken away.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
NETWORK_RIGHTS = 0b11  # bind and connect TCP, since version 4
SCOPES = 0b11  # abstract sockets and signals stay inside, since version 6
O_PATH = 0o10000000

# What an interpreter needs to compute, import and print, with its numbers on x86-64. There is no
# socket, fork, exec, kill, ptrace, mount, bpf, io_uring, memfd or ioctl among them.
ALLOWED = """
    read=0 write=1 close=3 stat=4 fstat=5 lstat=6 poll=7 lseek=8 mmap=9 mprotect=10 munmap=11
    brk=12 rt_sigaction=13 pread64=17 rt_sigprocmask=14 rt_sigreturn=15 readv=19 writev=20
    access=21 select=23 sched_yield=24 mremap=25 madvise=28 dup=32 nanosleep=35 getpid=39
    exit=60 uname=63 fcntl=72 getcwd=79 readlink=89 gettimeofday=96 getrusage=98 sysinfo=99
    times=100 getuid=102 getgid=104 geteuid=107 getegid=108 sigaltstack=131 gettid=186 time=201
    futex=202 sched_getaffinity=204 getdents64=217 restart_syscall=219 clock_gettime=228
    clock_getres=229 clock_nanosleep=230 exit_group=231 openat=257 newfstatat=262 readlinkat=267
    faccessat=269 set_robust_list=273 getrandom=318 statx=332 rseq=334 faccessat2=439
"""
AUDIT_ARCH_X86_64 = 0xC000003E
X32_BIT = 0x40000000
LOAD, JUMP_IF_EQUAL, JUMP_IF_GREATER_OR_EQUAL, RETURN = 0x20, 0x15, 0x35, 0x06
PERMIT, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # REFUSE: with EPERM

READY = b"\n"
LIBC = ctypes.CDLL(None, use_errno=True)


def limit_resources(seconds: float, memory_mb: int) -> None:
    """Memory beyond what the interpreter holds by now, CPU time, and no file that grows."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + (memory_mb << 20)
    most_seconds = int(seconds) + 2
    limits = {
        resource.RLIMIT_AS: memory,
        resource.RLIMIT_CPU: most_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for name, value in limits.items():
        resource.setrlimit(name, (value, value))


def give_up_privileges() -> None:
    """No program that is executed may gain rights; the process ends with its parent."""
    _checked(LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    _checked(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def restrict_files(readable: list[str]) -> None:
    """Landlock: nothing but these folders can be opened, and these only be read."""
    version = LIBC.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    _checked(version, "Landlock")
    files = (1 << FILE_RIGHTS.get(version, FILE_RIGHTS[5])) - 1
    fields = [files]
    if version >= 4:
        fields.append(NETWORK_RIGHTS)
    if version >= 6:
        fields.append(SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = LIBC.syscall(LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    _checked(ruleset, "landlock_create_ruleset")
    for folder in readable:
        beneath = os.open(folder, O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", READ_FILE | READ_DIR, beneath)
        added = LIBC.syscall(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        _checked(added, "landlock_add_rule")
        os.close(beneath)
    _checked(LIBC.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def restrict_calls() -> None:
    """seccomp: the system calls of ALLOWED; any other one fails with EPERM."""
    if platform.machine() != "x86_64" or sys.maxsize < 2**32:
        raise OSError(f"seccomp: the numbers of system calls on {platform.machine()} are not known")
    numbers = [int(entry.partition("=")[2]) for entry in ALLOWED.split()]
    program = [
        (LOAD, 0, 0, 4),  # the architecture
        (JUMP_IF_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # the number of the call
        (JUMP_IF_GREATER_OR_EQUAL, 0, 1, X32_BIT),
        (RETURN, 0, 0, REFUSE),
    ]
    for number in numbers:
        program += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, PERMIT)]
    program.append((RETURN, 0, 0, REFUSE))
    code = b"".join(struct.pack("=HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    filters = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    _checked(LIBC.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filters, 0, 0), "seccomp")


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise OSError(f"{what}: {os.strerror(ctypes.get_errno())}")


def confine(job: dict[str, Any]) -> None:
    """All layers. Inside bubblewrap those that do not work here may be missing."""
    limit_resources(job["seconds"], job["memory_mb"])
    give_up_privileges()
    layers = [lambda: restrict_files(job["readable"]), restrict_calls]
    for layer in layers:
        try:
            layer()
        except OSError:
            if job["way"] != "bubblewrap":
                raise


def run(program: str, names: dict[str, Any]) -> str:
    """Run a program; the text of its last expression, "" if that is None or no expression."""
    tree = ast.parse(program)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "main.py", "exec"), names)
    if not isinstance(last, ast.Expr):
        return ""
    value = eval(compile(ast.Expression(last.value), "main.py", "eval"), names)
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(value)


class _Nowhere:
    """An output that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """There is nothing to write."""


def run_all(job: dict[str, Any]) -> dict[str, str]:
    """The earlier programs without their output, then the program."""
    random.seed(0)  # the same program gives the same numbers
    names: dict[str, Any] = {"__name__": "__main__"}
    output = sys.stdout
    for earlier in job["earlier"]:
        sys.stdout = _Nowhere()  # type: ignore[assignment]
        try:
            run(earlier, names)
        except Exception:
            pass  # its error was shown when it ran first
        finally:
            sys.stdout = output
    try:
        value, error = run(job["program"], names), ""
    # Whatever ends the program is its result, sys.exit() included.
    except BaseException as failure:
        value, error = "", f"{type(failure).__name__}: {failure}"
    most = job["max_output"]
    return {"value": value[:most], "error": error[:most]}


def main() -> None:
    """Read a job from stdin, run it, and write its report to the file descriptor of argv[1].

    A line of its own goes before the report when the process is confined and the program begins.
    """
    report = int(sys.argv[1])
    job = json.loads(sys.stdin.buffer.read())
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # Its signal ends the process. No later call can stop the timer: seccomp refuses it.
    signal.setitimer(signal.ITIMER_PROF, job["seconds"])
    try:
        confine(job)
    except OSError as error:
        os.write(report, json.dumps({"value": "", "error": str(error)}).encode())
        return
    os.write(report, READY)
    told = run_all(job)
    try:
        sys.stdout.flush()
    finally:
        os.write(report, json.dumps(told).encode())
        os._exit(0)


if __name__ == "__main__":
    main()
