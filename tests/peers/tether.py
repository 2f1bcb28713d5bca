"""Runs a program for as long as the one that started it holds this one's standard input open.

tether.py PROGRAM [ARGUMENT…]

When the input ends (it was closed, or its holder died in whatever way), the program and all that it has started get
SIGTERM, and SIGKILL where that does not help. Everything the program prints comes out as standard output.
Exits with the program's exit code, or 0 where the input ended first.
"""

import os
import signal
import subprocess
import sys
import threading

STOP_SECONDS = 15.0


def kill_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


def main() -> int:
    program = subprocess.Popen(
        sys.argv[1:], stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    released = threading.Event()

    def stop_when_released() -> None:
        sys.stdin.buffer.read()
        released.set()
        kill_group(program.pid, signal.SIGTERM)
        try:
            program.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            kill_group(program.pid, signal.SIGKILL)

    threading.Thread(target=stop_when_released, daemon=True).start()
    code = program.wait()
    # Those of the group that have outlived their leader.
    kill_group(program.pid, signal.SIGKILL)
    return 0 if released.is_set() else code


if __name__ == "__main__":
    # Nobody but the holder of the input ends this: an interrupt from a terminal reaches the holder too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main())
