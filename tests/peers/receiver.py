"""A webhook endpoint that takes nothing on trust. It shares no code with Esito: what it knows is what is published.

receiver.py ENDPOINTS_FILE JWKS_URL SCHEMA_FILE

Listens on a free port of 127.0.0.1 (plain HTTP: something in front of it does TLS). First line: {"port": …}. Then a
line for each request: {"endpoint", "webhookId", "event", "signature", "jwt", "schema", "transport", "status", "path",
"headers", "body"}, where a verdict is "ok" or says what is wrong. It answers 204 if all are ok, 401 where the signature
or the token is not, else 422.

ENDPOINTS_FILE is read at every request: {NAME: {"signingSecret", "algorithm", "secret"?, "issuer", "audience",
"subject", "payload"}}; the endpoint's URL ends in /NAME.
"""

import http.server
import json
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import jsonschema
import jwt
import standardwebhooks

print_lock = threading.Lock()


def tell(line: dict[str, Any]) -> None:
    with print_lock:
        print(json.dumps(line), flush=True)


def verdict(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # a verifier may fail in any way; each of them is a verdict
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return "ok"


class Verifier:
    def __init__(self, jwks_url: str, schema_file: Path) -> None:
        # Fetched once and kept, and fetched anew for a key that is not in it: as receivers do.
        self.keys = jwt.PyJWKClient(jwks_url)
        schemas = json.loads(schema_file.read_text())
        jsonschema.Draft202012Validator.check_schema(schemas)
        formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
        self.schemas = {
            payload: jsonschema.Draft202012Validator(
                {"$ref": f"#/$defs/{payload}", "$defs": schemas["$defs"]}, format_checker=formats
            )
            for payload in ("standard", "extended")
        }

    def signature(self, endpoint: dict[str, Any], headers: dict[str, str], body: bytes) -> None:
        standardwebhooks.Webhook(endpoint["signingSecret"]).verify(body, headers)

    def token(self, endpoint: dict[str, Any], headers: dict[str, str]) -> None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise ValueError(f"the scheme is {scheme!r}")
        secret = endpoint.get("secret")
        key = self.keys.get_signing_key_from_jwt(token) if secret is None else secret
        claims = jwt.decode(
            token,
            key,
            algorithms=[endpoint["algorithm"]],
            issuer=endpoint["issuer"],
            audience=endpoint["audience"],
            subject=endpoint["subject"],
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
        if claims["exp"] - claims["iat"] != endpoint["expiresInSeconds"]:
            raise ValueError(f"good for {claims['exp'] - claims['iat']} s")
        if claims.get("tenant") != endpoint["algorithm"]:
            raise ValueError(f"the configured claim is {claims.get('tenant')!r}")

    def schema(self, endpoint: dict[str, Any], body: bytes) -> None:
        self.schemas[endpoint["payload"]].validate(json.loads(body))

    def transport(self, headers: dict[str, str]) -> None:
        expected = {"content-type": "application/json", "x-forwarded-proto": "https", "x-configured": "as it was set"}
        for name, value in expected.items():
            if headers.get(name) != value:
                raise ValueError(f"{name} is {headers.get(name)!r}")
        if not headers.get("user-agent", "").startswith("Esito/"):
            raise ValueError(f"user-agent is {headers.get('user-agent')!r}")


class Endpoint(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Receiver"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        name = self.path.rpartition("/")[2]
        endpoint = json.loads(self.server.endpoints_file.read_text())[name]
        verifier = self.server.verifier
        verdicts = {
            "signature": verdict(lambda: verifier.signature(endpoint, headers, body)),
            "jwt": verdict(lambda: verifier.token(endpoint, headers)),
            "schema": verdict(lambda: verifier.schema(endpoint, body)),
            "transport": verdict(lambda: verifier.transport(headers)),
        }
        if verdicts["signature"] != "ok" or verdicts["jwt"] != "ok":
            status = 401
        else:
            status = 204 if set(verdicts.values()) == {"ok"} else 422
        try:
            event = json.loads(body)
        except ValueError:
            event = None
        tell(
            {
                "endpoint": name,
                "webhookId": headers.get("webhook-id"),
                "event": event,
                "status": status,
                "path": self.path,
                "headers": headers,
                "body": body.decode("utf-8", "replace"),
                **verdicts,
            }
        )
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Receiver(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoints_file: Path, verifier: Verifier) -> None:
        super().__init__(("127.0.0.1", 0), Endpoint)
        self.endpoints_file = endpoints_file
        self.verifier = verifier


def main() -> None:
    endpoints_file, jwks_url, schema_file = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    receiver = Receiver(endpoints_file, Verifier(jwks_url, schema_file))
    tell({"port": receiver.server_address[1]})
    receiver.serve_forever()


if __name__ == "__main__":
    main()
