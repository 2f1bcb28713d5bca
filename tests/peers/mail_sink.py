"""Takes mail on a free port of 127.0.0.1 and tells of each as a line of JSON.

mail_sink.py FOLDER [REJECT_PATTERN]

First line: {"port": …}. Then one for each recipient of each mail, after the mail has been written to FOLDER:
{"to", "from", "file", "messageId", "tos", "subject", "fromHeader", "contentTypes", "text", "html", "defects", "raw"}.
Recipients that match the pattern are refused at RCPT. What is read of the mail is read by Python's own email package
with its default policy; `defects` names all that it found wrong in any part or header.
"""

import asyncio
import email
import email.policy
import json
import re
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Iterator

from aiosmtpd.smtp import SMTP, Envelope, Session


def defects_of(message: EmailMessage) -> Iterator[str]:
    for part in message.walk():
        yield from (repr(defect) for defect in part.defects)
        for name, value in part.items():
            yield from (f"{name}: {defect!r}" for defect in getattr(value, "defects", ()))
        if not part.is_multipart():
            try:
                # Decodes the transfer encoding, which notes its defects on the part.
                part.get_content()
            except (LookupError, UnicodeError, ValueError) as error:
                yield repr(error)
            yield from (repr(defect) for defect in part.defects)


def content_of(message: EmailMessage, kind: str) -> str | None:
    body = message.get_body(preferencelist=(kind,))
    return None if body is None else str(body.get_content())


def describe(raw: bytes) -> dict[str, Any]:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    defects = sorted(set(defects_of(message)))
    long_lines = [line for line in raw.split(b"\r\n") if len(line) > 998]
    if long_lines:
        defects.append(f"{len(long_lines)} lines over 998 bytes")
    if re.search(rb"(?<!\r)\n|\r(?!\n)", raw):
        defects.append("a bare CR or LF")
    if not raw.isascii():
        defects.append("a byte of more than 7 bits")
    try:
        # Again with every defect an error: the policy under which nothing is forgiven.
        email.message_from_bytes(raw, policy=email.policy.strict)
    except Exception as error:  # whatever it is, the test is to see it
        defects.append(f"strict: {error!r}")
    return {
        "messageId": [str(value) for value in message.get_all("message-id", [])],
        "tos": [address.addr_spec for value in message.get_all("to", []) for address in value.addresses],
        "subject": str(message["subject"]),
        "fromHeader": str(message["from"]),
        "date": str(message["date"]),
        "contentTypes": [part.get_content_type() for part in message.walk()],
        "text": content_of(message, "plain"),
        "html": content_of(message, "html"),
        "defects": defects,
        "raw": raw.decode("utf-8", "replace"),
    }


class Sink:
    def __init__(self, folder: Path, reject: str | None) -> None:
        self.folder = folder
        self.reject = re.compile(reject) if reject else None
        self.count = 0

    async def handle_RCPT(self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if self.reject and self.reject.search(address):
            return "550 5.1.1 no such user at the sink"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 ok"

    async def handle_DATA(self, _: SMTP, __: Session, envelope: Envelope) -> str:
        raw = envelope.original_content or b""
        for address in envelope.rcpt_tos:
            self.count += 1
            file = self.folder / f"{self.count:06}.eml"
            file.write_bytes(raw)
            mail = {"to": address, "from": envelope.mail_from, "file": str(file), **describe(raw)}
            print(json.dumps(mail), flush=True)
        return "250 2.0.0 taken"


async def serve(sink: Sink) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(sink, hostname="sink.test"), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(Sink(folder, sys.argv[2] if len(sys.argv) > 2 else None)))


if __name__ == "__main__":
    main()
