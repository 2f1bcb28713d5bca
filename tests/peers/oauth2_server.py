"""An OAuth 2.0 authorization server and the webhook endpoint that it protects, both by Authlib, over TLS.

oauth2_server.py CERTIFICATE KEY JWKS_URL CLIENTS_FILE KEYS_FILE

Listens on a free port of 127.0.0.1. First line: {"port": …}. CLIENTS_FILE is {CLIENT_ID: {"grant", "secret"?}}. POST
/token is the token endpoint; each request to it is a line {"token": CLIENT_ID or null, "status", "error"}. A client
without a secret proves itself by an assertion under a key at JWKS_URL. POST /hook/NAME takes an event with a token of
this server whose scope is "feedback": a line {"hook": NAME, "client", "status", "fault", "signed"}. KEYS_FILE is read at
each of these: {NAME: ["whpk_…"]}; "signed" tells of each key whether one of the request's `v1a` signatures is of it.
"""

import base64
import http.server
import json
import os
import secrets
import ssl
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    ClientMixin,
    OAuth2Error,
    OAuth2Request,
    ResourceProtector,
    TokenMixin,
)
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator, BearerTokenValidator
from authlib.oauth2.rfc7523 import JWTBearerGrant
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.jwk import KeySet

SCOPE = "feedback"
print_lock = threading.Lock()


def tell(line: dict[str, Any]) -> None:
    with print_lock:
        print(json.dumps(line), flush=True)


class Client(ClientMixin):
    def __init__(self, name: str, known: dict[str, str]) -> None:
        self.name = name
        self.known = known

    def get_client_id(self) -> str:
        return self.name

    def get_allowed_scope(self, scope: str | None) -> str:
        return SCOPE if scope == SCOPE else ""

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self.known["secret"].encode(), client_secret.encode())

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic" and "secret" in self.known

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == self.known["grant"]


class Token(TokenMixin):
    def __init__(self, client: str, answer: dict[str, Any]) -> None:
        self.client = client
        self.scope = answer.get("scope", "")
        self.ends = time.monotonic() + answer["expires_in"]

    def get_scope(self) -> str:
        return self.scope

    def is_expired(self) -> bool:
        return time.monotonic() >= self.ends

    def is_revoked(self) -> bool:
        return False


class FormRequest(OAuth2Request):
    def __init__(self, method: str, uri: str, headers: Any, body: bytes) -> None:
        super().__init__(method, uri, headers=headers)
        pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
        if len(pairs) != len(dict(pairs)):
            raise ValueError("a parameter is there twice")
        self.fields = dict(pairs)
        self.payload = BasicOAuth2Payload(self.fields)

    @property
    def form(self) -> dict[str, str]:
        return self.fields


class Server(AuthorizationServer):
    def __init__(self, clients: dict[str, Client], jwks_url: str) -> None:
        super().__init__(scopes_supported=[SCOPE])
        self.clients = clients
        self.jwks_url = jwks_url
        self.tokens: dict[str, Token] = {}
        self.assertions: set[str] = set()
        generator = BearerTokenGenerator(lambda **_: secrets.token_urlsafe(32), expires_generator=lambda *_: 3600)
        self.register_token_generator("default", generator)
        self.register_grant(ClientCredentialsGrant)
        self.register_grant(Assertion)

    def query_client(self, client_id: str) -> Client | None:
        return self.clients.get(client_id)

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        self.tokens[token["access_token"]] = Token(request.client.name, token)

    def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> tuple[int, Any, Any]:
        return status, body, headers

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass


class Assertion(JWTBearerGrant):
    CLAIMS_OPTIONS = JWTBearerGrant.CLAIMS_OPTIONS | {"jti": {"essential": True}, "sub": {"essential": True}}
    LEEWAY = 5
    server: Server

    def resolve_issuer_client(self, issuer: str) -> Client | None:
        return self.server.clients.get(issuer)

    def resolve_client_public_key(self, client: Client) -> KeySet:
        with urllib.request.urlopen(self.server.jwks_url, timeout=10) as answer:
            return KeySet.import_key_set(json.load(answer))

    def verify_claims(self, claims: dict[str, Any]) -> None:
        super().verify_claims(claims)
        if claims["exp"] - claims["iat"] != 300 or claims["jti"] in self.server.assertions:
            raise OAuth2Error("the assertion is not good for 300 s, or came before")
        self.server.assertions.add(claims["jti"])

    def authenticate_user(self, subject: str) -> Client | None:
        return self.server.clients.get(subject)

    def has_granted_permission(self, client: Client, user: Client) -> bool:
        return client is user

    def get_audiences(self) -> list[str]:
        return [self.request.uri]


class Validator(BearerTokenValidator):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    def authenticate_token(self, token_string: str) -> Token | None:
        return self.server.tokens.get(token_string)


def is_signed(public_key: str, headers: Any, body: bytes) -> bool:
    """Standard Webhooks 1.0, `v1a`."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_"), validate=True))
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for signature in headers["webhook-signature"].split(" "):
        version, _, encoded = signature.partition(",")
        if version == "v1a":
            try:
                key.verify(base64.b64decode(encoded, validate=True), text)
                return True
            except InvalidSignature:
                pass
    return False


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    oauth2: Server
    protector: ResourceProtector
    keys_file: Path

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        uri = f"https://{self.headers['host']}{self.path}"
        if self.path == "/token":
            self.token(FormRequest("POST", uri, self.headers, body))
        else:
            self.hook(OAuth2Request("POST", uri, headers=self.headers), body)

    def token(self, request: FormRequest) -> None:
        if self.headers["content-type"] != "application/x-www-form-urlencoded":
            return self.answer(415, {})
        status, answer, _ = self.oauth2.create_token_response(request)
        # As careless servers do: the error tells what it got.
        answer = dict(answer)
        if "error" in answer:
            basic = base64.b64decode(self.headers.get("authorization", "").removeprefix("Basic ")).decode()
            answer["error_description"] = f"not {urllib.parse.unquote(basic)} ({self.headers.get('authorization')})"
        tell({"token": request.client and request.client.name, "status": status, "error": answer.get("error")})
        self.answer(status, answer)

    def hook(self, request: OAuth2Request, body: bytes) -> None:
        token, fault = None, None
        try:
            token = self.protector.validate_request([SCOPE], request)
        except OAuth2Error as error:
            fault = error.error
        status = 401 if fault else 204
        name = self.path.rpartition("/")[2]
        keys = json.loads(self.keys_file.read_text())[name]
        signed = [is_signed(key, self.headers, body) for key in keys]
        tell({"hook": name, "client": token and token.client, "status": status, "fault": fault, "signed": signed})
        self.answer(status, None)

    def answer(self, status: int, answer: Any) -> None:
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        # The handshake happens in the request's own thread.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


def main() -> None:
    certificate, key, jwks_url, clients_file, keys_file = sys.argv[1:]
    Handler.keys_file = Path(keys_file)
    known = json.loads(Path(clients_file).read_text())
    Handler.oauth2 = Server({name: Client(name, client) for name, client in known.items()}, jwks_url)
    Handler.protector = ResourceProtector()
    Handler.protector.register_token_validator(Validator(Handler.oauth2))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = Listener(context)
    tell({"port": listener.server_address[1]})
    listener.serve_forever()


if __name__ == "__main__":
    os.environ.pop("AUTHLIB_INSECURE_TRANSPORT", None)
    main()
