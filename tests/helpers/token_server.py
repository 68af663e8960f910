# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A token service for a real registry: JSON Web Tokens as the distribution project specifies them, signed by openssl.

with TokenServer(directory, ("me", "secret")) as tokens:
    with Registry(directory, tokens=tokens) as registry: ...
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, List
from urllib.parse import parse_qs, urlsplit

SERVICE = "wharf-tests"
ISSUER = "wharf token server"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class TokenServer:
    """``users``: (name, password) of who may push; everybody may pull below ``public/``. ``life``: seconds that a
    token is good for. ``scopes`` are those that were asked for."""

    def __init__(self, directory: str, users: Any, life: int = 300) -> None:
        self.users = users
        self.life = life
        self.scopes: List[str] = []
        self.key, self.certificate = directory + "/token.key", directory + "/token.crt"
        os.makedirs(directory, exist_ok=True)
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"]
        subprocess.run([*command, "-keyout", self.key, "-out", self.certificate], check=True, capture_output=True)
        pem = open(self.certificate).read()
        self._chain = ["".join(pem.split("-----")[2].split())]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def config(self) -> str:
        """For the registry's configuration."""
        return "auth:\n  token: {realm: 'http://127.0.0.1:%d/token', service: %s, issuer: %s, rootcertbundle: %s}\n" % (
            self._server.server_address[1], SERVICE, ISSUER, self.certificate,
        )  # fmt: skip

    def token(self, scopes: List[str], user: str) -> str:
        access = []
        for scope in scopes:
            kind, _colon, rest = scope.partition(":")
            name, _colon, actions = rest.rpartition(":")
            wanted = actions.split(",")
            granted = wanted if user else ["pull"] if name.startswith("public/") and "pull" in wanted else []
            if granted:
                access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + self.life, "nbf": now - 10, "iat": now,
            "jti": os.urandom(8).hex(), "access": access,
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "RS256", "x5c": self._chain}
        signed = "%s.%s" % (_b64(json.dumps(head).encode()), _b64(json.dumps(claims).encode()))
        command = ["openssl", "dgst", "-sha256", "-sign", self.key]
        done = subprocess.run(command, input=signed.encode(), stdout=subprocess.PIPE, check=True)
        return "%s.%s" % (signed, _b64(done.stdout))

    def _handler(self) -> Any:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

            def do_GET(self) -> None:
                scopes = parse_qs(urlsplit(self.path).query).get("scope", [])
                outer.scopes += scopes
                given = self.headers.get("Authorization") or ""
                login = base64.b64decode(given[len("Basic ") :]).decode() if given else ""
                if login and login != "%s:%s" % outer.users:
                    self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong password"}]})
                    return
                token = outer.token(scopes, login.partition(":")[0])
                self._answer(200, {"token": token, "expires_in": outer.life})

            def _answer(self, status: int, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler
