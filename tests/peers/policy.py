"""A policy service for Postfix (check_policy_service), on a free port of 127.0.0.1.

policy.py [HOLD_AFTER HOLD_COUNT]

First line: {"port": …}. Recipients named `defer-N-…` are deferred N times with a 450, others are let through.
With HOLD_AFTER, once that many recipients were let through, no question is answered any more, until HOLD_COUNT wait at
the same time: then {"held": HOLD_COUNT} is told, and those that wait get no answer ever; later ones do. So whoever
stops Postfix at that line stops it in the middle of HOLD_COUNT conversations, none of which has come to its mail's end.
"""

import json
import re
import socketserver
import sys
import threading

DEFER = re.compile(r"defer-(\d+)-")


class Rules:
    def __init__(self, hold_after: int | None, hold_count: int) -> None:
        self.lock = threading.Lock()
        self.deferred: dict[str, int] = {}
        self.let_through = 0
        self.hold_after = hold_after
        self.hold_count = hold_count
        self.held = 0

    def holds(self) -> bool:
        with self.lock:
            if self.hold_after is None or self.let_through < self.hold_after:
                return False
            self.held += 1
            if self.held == self.hold_count:
                self.hold_after = None
                print(json.dumps({"held": self.held}), flush=True)
            return True

    def judge(self, recipient: str) -> str:
        times = DEFER.match(recipient)
        with self.lock:
            so_far = self.deferred.get(recipient, 0)
            if times and so_far < int(times[1]):
                self.deferred[recipient] = so_far + 1
                return "450 4.2.0 greylisted, come again later"
            self.let_through += 1
            return "DUNNO"


class Conversation(socketserver.StreamRequestHandler):
    server: "Service"

    def handle(self) -> None:
        asked: dict[str, str] = {}
        for line in self.rfile:
            name, _, value = line.decode("utf-8", "replace").rstrip("\n").partition("=")
            if name:
                asked[name] = value
                continue
            if self.server.rules.holds():
                # Until the other side is gone.
                self.rfile.read()
                return
            action = self.server.rules.judge(asked.get("recipient", ""))
            self.wfile.write(f"action={action}\n\n".encode())
            asked = {}


class Service(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, rules: Rules) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.rules = rules


def main() -> None:
    hold = [int(word) for word in sys.argv[1:3]]
    service = Service(Rules(hold[0] if hold else None, hold[1] if hold else 0))
    print(json.dumps({"port": service.server_address[1]}), flush=True)
    service.serve_forever()


if __name__ == "__main__":
    main()
