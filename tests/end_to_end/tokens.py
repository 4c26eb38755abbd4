"""A server that gives tokens for a registry, as Docker's and everybody else's do (distribution's token specification).

It knows one user. A token is good for one minute and for what was asked for; nobody without a name may push.
"""

import base64
import json
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

USER, PASSWORD = "till", "open sesame"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
SERVICE, ISSUER = "registry", "tokens"


@dataclass
class Tokens:
    """Runs inside of `with`. `asked` has the Authorization header of each request."""

    folder: Path
    asked: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(self.folder / "tokens.pem")
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.tokens = self
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def auth(self) -> str:
        """For docker-registry's configuration."""
        realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        bundle = self.folder / "tokens.pem"
        return (
            f"auth: {{token: {{realm: '{realm}', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: '{bundle}'}}}}"
        )

    def token(self, scope: str) -> str:
        """A JSON Web Token (RFC 7515, ES256) for a scope such as `repository:name:pull,push`."""
        kind, name, actions = scope.split(":")
        now = int(time.time())
        certificate = serialization.load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        assert isinstance(certificate, ec.EllipticCurvePrivateKey)
        pem = self._authority.cert_pem.bytes().decode()
        header = {"typ": "JWT", "alg": "ES256", "x5c": ["".join(pem.split("-----")[2].split())]}
        claims = {"iss": ISSUER, "sub": USER, "aud": SERVICE, "exp": now + 60, "nbf": now - 60, "iat": now, "jti": "1"}
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        signed = f"{_packed(header)}.{_packed(claims | {'access': access})}"
        r, s = decode_dss_signature(certificate.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tokens: Tokens


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        said, tokens = self.headers.get("Authorization"), self.server.tokens
        tokens.asked.append(said)
        scope = parse_qs(urlsplit(self.path).query)["scope"][0]
        known = said == BASIC
        body = json.dumps({"token": tokens.token(scope)} if known else {}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _packed(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
