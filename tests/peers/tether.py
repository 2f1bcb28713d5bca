"""Runs a program for as long as the one that started it holds this one's standard input open.

tether.py PROGRAM [ARGUMENT…]

When the input ends (it was closed, or its holder died in whatever way), the program and all that it has started get
SIGTERM, and SIGKILL where that does not help; the same for what a program leaves behind that ends by itself. Processes
that have moved to sessions of their own (Postfix's master) are found too: this one adopts all orphans below it.
What the program prints, by standard error too, comes out as standard output. Exits when nothing is left: with the
program's exit code, or with 0 where the input ended first.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
STOP_SECONDS = 15.0


def children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold anything; the state and the parent's id follow it.
            _, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid():
            found.append(int(stat.parent.name))
    return found


def end_children() -> None:
    end = time.monotonic() + STOP_SECONDS
    told: set[int] = set()
    while left := children():
        late = time.monotonic() > end
        for child in left:
            if late or child not in told:
                told.add(child)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL if late else signal.SIGTERM)
        # Those whose parent has just died are adopted meanwhile.
        time.sleep(0.02)


def main() -> int:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True)
    released = threading.Event()

    def end_when_released() -> None:
        sys.stdin.buffer.read()
        released.set()
        end_children()

    threading.Thread(target=end_when_released, daemon=True).start()
    code = 0
    while True:
        try:
            ended, status = os.wait()
        except ChildProcessError:
            return 0 if released.is_set() else code
        if ended == program.pid:
            code = os.waitstatus_to_exitcode(status)
            program.returncode = code
            threading.Thread(target=end_children, daemon=True).start()


if __name__ == "__main__":
    # Nobody but the holder of the input ends this: an interrupt from a terminal reaches the holder too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main() & 0xFF)
