"""Programs that try to leave an interpreter, by what they are after.

In them ``SECRET`` is a file of the host, ``TARGET`` one that they would write, ``PORT`` a socket of
the host, ``PARENT`` its process. What they print tells whether they got through: LEAKED is the
content of the file and of a variable of the environment.
"""

LEAKED = "TOP-SECRET-42"

FILES = {
    "open": "print(open('SECRET').read())",
    "open bytes": "print(open('SECRET', 'rb').read())",
    "pathlib": "from pathlib import Path\nprint(Path('SECRET').read_text())",
    "os.open": "import os\nprint(os.read(os.open('SECRET', os.O_RDONLY), 100))",
    "traversal": "print(open('/usr/../' + 'SECRET').read())",
    "through /proc": "print(open('/proc/self/root' + 'SECRET').read())",
    "environment of the parent": "print(open('/proc/PARENT/environ').read())",
    "memory of the parent": "open('/proc/PARENT/mem', 'rb+').read(1)\nprint('TOP-SECRET-42')",
    "list the root": "import os\nprint(os.listdir('/etc'))",
    "fileinput": "import fileinput\nprint(list(fileinput.input('SECRET')))",
    "linecache": "import linecache\nprint(linecache.getlines('SECRET'))",
    "io.FileIO": "import io\nprint(io.FileIO('SECRET').readall())",
    "sqlite": "import sqlite3\nprint(sqlite3.connect('SECRET').execute('select 1'))",
    "exec of a file": "exec(open('SECRET').read())",
    "write": "open('TARGET', 'w').write('x')",
    "os.open to write": "import os\nos.write(os.open('TARGET', os.O_CREAT | os.O_WRONLY), b'x')",
    "mkdir": "import os\nos.mkdir('TARGET')",
    "symlink": "import os\nos.symlink('SECRET', 'TARGET')",
    "unlink": "import os\nos.unlink('SECRET')",
    "chmod": "import os\nos.chmod('SECRET', 0)",
    "rename": "import os\nos.rename('SECRET', 'TARGET')",
    "truncate": "import os\nos.truncate('SECRET', 0)",
    "environment": "import os\nprint(dict(os.environ))",
    "getenv": "import os\nprint(os.getenv('HOST_VARIABLE'))",
}

PROCESSES = {
    "os.system": "import os\nos.system('touch TARGET')",
    "subprocess": "import subprocess\n"
    "print(subprocess.run(['cat', 'SECRET'], capture_output=True))",
    "fork": "import os\nif os.fork() == 0:\n    while True: pass",
    "fork bomb": "import os\nwhile True:\n    os.fork()",
    "spawn": "import os\nos.posix_spawn('/bin/sh', ['sh', '-c', 'touch TARGET'], {})",
    "exec": "import os\nos.execv('/bin/cat', ['cat', 'SECRET'])",
    "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    "thread": "import threading\n"
    "threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()",
    "kill the parent": "import os\nos.kill(PARENT, 9)",
    "kill the group": "import os\nos.killpg(os.getpgid(PARENT), 9)",
    "kill everything": "import os\nos.kill(-1, 9)",
    "new session": "import os\nos.setsid()\nif os.fork() == 0:\n    while True: pass",
    "ptrace": "import ctypes\nprint(ctypes.CDLL(None).ptrace(16, PARENT, 0, 0))",
    "memfd": "import os\nos.memfd_create('x')\nos.system('touch TARGET')",
    "unshare": "import ctypes\nctypes.CDLL(None).unshare(0x10000000)\nprint(open('SECRET').read())",
    "x32 calls": "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 57)",
    "io_uring": "import ctypes\n"
    "print(ctypes.CDLL(None).syscall(425, 8, 0) >= 0 and 'TOP-SECRET-42')",
}

NETWORK = {
    "connect": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)",
    "udp": "import socket\nsocket.socket(2, 2).sendto(b'x', ('127.0.0.1', PORT))",
    "listen": "import socket\nsocket.create_server(('127.0.0.1', 0))\nprint('TOP-SECRET-42')",
    "urllib": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:PORT', timeout=1)",
    "unix socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('SECRET')",
    "raw socket call": "import ctypes\n"
    "print(ctypes.CDLL(None).socket(2, 1, 0) >= 0 and 'TOP-SECRET-42')",
}

MEMORY = {
    "list": "a = [0] * 10**10",
    "doubling": "a = [0]\nwhile True:\n    a = a + a",
    "str": "s = 'a' * 10**11",
    "bytes": "b = bytes(10**11)",
    "dict": "d = {}\ni = 0\nwhile True:\n    d[i] = str(i) * 100\n    i += 1",
    "nested lists": "a = ['x'] * 10\nfor _ in range(12):\n    a = [a] * 10\nprint(a)",
    "power": "x = 2 ** (2 ** 40)",
    "shift": "x = 1 << 10**12",
    "width": "print('{:>9999999999}'.format(1))",
    "replace": "s = 'a' * 10**4\nfor _ in range(4):\n    s = s.replace('a', 'a' * 10**4)",
}

TIME = {
    "loop": "while True:\n    pass",
    "loop that catches": "while True:\n"
    "    try:\n        while True: pass\n    except BaseException:\n        pass",
    "loop in finally": "try:\n    while True: pass\nfinally:\n    while True: pass",
    "sum": "sum(range(10**12))",
    "regular expression": "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    "factorial": "import math\nmath.factorial(10**7)",
    "sleep": "import time\ntime.sleep(1000)",
    "sleep again and again": "import time\nwhile True:\n    time.sleep(1)",
    "ignores the signals": "import signal\nfor n in (14, 15, 24, 26, 27):\n"
    "    signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
    "input": "print(input())",
}

OUTPUT = {
    "many lines": "for i in range(10**7):\n    print('x' * 100)",
    "one line": "print('x' * (30 * 2**20))",
    "value": "'x' * (20 * 2**20)",
    "message": "raise ValueError('x' * (20 * 2**20))",
    "control": "print('\\x00\\x1b[2J\\ud800')",
}

OBJECTS = {
    "subclasses": "print([c for c in ().__class__.__base__.__subclasses__() if 'open' in str(c)]"
    "[0]('SECRET').read())",
    "globals of a function": "def f(): pass\n"
    "print(f.__globals__['__builtins__'].open('SECRET').read())",
    "__import__": "print(__import__('builtins').open('SECRET').read())",
    "importlib": "import importlib\nprint(importlib.import_module('io').open('SECRET').read())",
    "frames": "try:\n    1 / 0\nexcept Exception as e:\n"
    "    print(e.__traceback__.tb_frame.f_back.f_globals['open']('SECRET').read())",
    "format": "print('{0.__class__.__mro__}'.format(1))\nprint(open('SECRET').read())",
    "pickle": "import pickle\nprint(pickle.loads(b'cbuiltins\\nopen\\n(S\"SECRET\"\\ntR.').read())",
    "ctypes": "import ctypes\nctypes.string_at(0)",
    "the loader": "import sys\nprint(sys.modules['os'].popen('cat SECRET').read())",
    "recursion": "def f(n): return f(n + 1)\nf(0)",
    "deep value": "a = []\nfor _ in range(100000):\n    a = [a]\na",
    "deep source": "(" * 50000 + ")" * 50000,
    "null bytes": "print('a')\n\x00",
}

WORKER_DEATH = {
    "os._exit": "import os\nos._exit(1)",
    "sys.exit": "import sys\nsys.exit(3)",
    "abort": "import os\nos.abort()",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "closes its report": "import os\nfor fd in range(3, 20):\n    try:\n        os.close(fd)\n"
    "    except OSError:\n        pass",
    "forges a report": "import os\n"
    "for fd in range(3, 20):\n    try:\n        os.write(fd, b'[[[')\n"
    "    except OSError:\n        pass",
}

ATTACKS = {
    f"{kind}: {name}": program
    for kind, programs in {
        "files": FILES,
        "processes": PROCESSES,
        "network": NETWORK,
        "memory": MEMORY,
        "time": TIME,
        "output": OUTPUT,
        "objects": OBJECTS,
        "worker death": WORKER_DEATH,
    }.items()
    for name, program in programs.items()
}
