"""A DNS server whose answers change from one question to the next, by dnslib.

rebinding_dns.py ZONE_FILE

Listens on a free port of 127.0.0.1, by UDP and TCP. First line: {"port": …}. ZONE_FILE is read at each question:
{NAME: {"A": [ANSWER…], "AAAA": [ANSWER…]}}. The questions for a name and type get its ANSWERs in turn, the first again
after the last. An ANSWER is the records of the answer section: addresses of either family, whatever was asked for, and
"CNAME NAME", which the records behind it belong to. All have a TTL of 0. A name that the file does not have is
NXDOMAIN, a type that it does not have an empty answer. Each question is a line {"name", "type", "answer"}, "answer"
null for NXDOMAIN.
"""

import ipaddress
import json
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer


def record(owner: str, text: str) -> RR:
    if text.startswith("CNAME "):
        return RR(owner, QTYPE.CNAME, rdata=CNAME(text.removeprefix("CNAME ")), ttl=0)
    address = ipaddress.ip_address(text)
    if address.version == 4:
        return RR(owner, QTYPE.A, rdata=A(str(address)), ttl=0)
    return RR(owner, QTYPE.AAAA, rdata=AAAA(tuple(address.packed)), ttl=0)


class Rebinding(BaseResolver):
    def __init__(self, zone_file: Path) -> None:
        self.zone_file = zone_file
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()

    def answer(self, name: str, kind: str) -> list[str] | None:
        with self.lock:
            types = json.loads(self.zone_file.read_text()).get(name)
            answers = (types or {}).get(kind, [])
            # By the answers too, so that a name whose answers are changed begins with the first of the new ones.
            key = json.dumps([name, kind, answers])
            answer = answers[self.asked[key] % len(answers)] if answers else []
            self.asked[key] += 1
            told = None if types is None else answer
            print(json.dumps({"name": name, "type": kind, "answer": told}), flush=True)
            return told

    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        owner = str(request.q.qname)
        answer = self.answer(owner.rstrip(".").lower(), QTYPE[request.q.qtype])
        reply = request.reply()
        if answer is None:
            reply.header.rcode = RCODE.NXDOMAIN
            return reply
        for text in answer:
            reply.add_answer(record(owner, text))
            if text.startswith("CNAME "):
                owner = text.removeprefix("CNAME ")
        return reply


def listen(resolver: Rebinding) -> list[DNSServer]:
    """UDP and TCP on one port that is free for both."""
    logger = DNSLogger(log="error", logf=lambda line: print(line, file=sys.stderr, flush=True))
    for _ in range(100):
        udp = DNSServer(resolver, address="127.0.0.1", port=0, logger=logger)
        port = udp.server.server_address[1]
        try:
            return [udp, DNSServer(resolver, address="127.0.0.1", port=port, tcp=True, logger=logger)]
        except OSError:
            udp.server.server_close()
    raise OSError("no port is free for both UDP and TCP")


def main() -> None:
    servers = listen(Rebinding(Path(sys.argv[1])))
    for server in servers:
        server.start_thread()
    print(json.dumps({"port": servers[0].server.server_address[1]}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
