# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A registry that lies on request: ``http.server`` in a thread on 127.0.0.1.

    with FakeRegistry() as registry:
        registry.add("library/app", "1", image)
        registry.script("/blobs/", reset_after(1000))     # the next matching request, once
        registry.script("/manifests/", status(429), times=3)

A behaviour is ``f(handler, path) -> bool``: True when it answered, False to go on with the honest answer.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

from helpers.images import Image

Behaviour = Callable[["Handler", str], bool]


class Request(NamedTuple):
    method: str
    path: str
    headers: Dict[str, str]  # names in lower case
    client: Tuple[Any, ...] = ()


class FakeRegistry:
    """``requests`` is everything that arrived. ``auth`` is None, ("basic", user, password) or
    ("bearer", user, password); with user "" tokens are for everybody. ``token_life`` requests expire a token."""

    def __init__(self, tls: str = "", address: str = "127.0.0.1", clients: str = "") -> None:
        """``tls``: a directory with ``server.crt`` and ``server.key`` (see ``helpers.registry.make_certificates``).
        ``clients``: the authority whose certificates clients must show."""
        self.scheme = "https" if tls else "http"
        self.blobs: Dict[str, bytes] = {}
        self.manifests: Dict[Tuple[str, str], Tuple[bytes, str]] = {}
        self.requests: List[Request] = []
        self.auth: Optional[Tuple[str, str, str]] = None
        self.realm = ""
        self.token_life = 10**9
        self.tokens: Dict[str, int] = {}
        self.issued = 0
        self.page = 10**9
        self.uploads: Dict[str, bytes] = {}  # what has arrived of uploads that are not finished
        self.upload_base = ""  # put before the path in Location
        self.begun = 0
        self.mountable = True
        self.body_limit = 10**12
        self.lock = threading.Lock()
        self._scripts: List[List[Any]] = []
        self._address = "[%s]" % address if ":" in address else address
        self._server = (_Server6 if ":" in address else _Server)((address, 0), Handler)
        self._server.registry = self
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls + "/server.crt", tls + "/server.key")
            if clients:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(cafile=clients)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> FakeRegistry:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def host(self) -> str:
        return "%s:%d" % (self._address, self.port)

    @property
    def url(self) -> str:
        return "%s://%s" % (self.scheme, self.host)

    def add(self, repository: str, tag: str, image: Image) -> str:
        """Serve ``image``; returns the reference."""
        self.blobs.update(image.blobs)
        for digest, manifest in image.manifests.items():
            self.manifests[(repository, digest)] = manifest
        self.manifests[(repository, tag)] = image.manifests[image.top]
        return "%s/%s:%s" % (self.host, repository, tag)

    def script(self, fragment: str, behaviour: Behaviour, *, times: int = 1) -> None:
        """The next ``times`` requests whose path contains ``fragment`` are ``behaviour``'s."""
        with self.lock:
            self._scripts.append([fragment, behaviour, times])

    def scripted(self, path: str) -> Optional[Behaviour]:
        with self.lock:
            for entry in self._scripts:
                if entry[0] in path and entry[2] > 0:
                    entry[2] -= 1
                    behaviour: Behaviour = entry[1]
                    return behaviour
        return None

    def seen(self, fragment: str, method: str = "") -> List[Request]:
        with self.lock:
            return [r for r in self.requests if fragment in r.path and method in ("", r.method)]


class _Server(ThreadingHTTPServer):
    registry: FakeRegistry
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def registry(self) -> FakeRegistry:
        return self.server.registry

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    body = b""

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.registry.lock:
            self.registry.requests.append(Request(self.command, self.path, headers, self.client_address))
        behaviour = self.registry.scripted(self.path)
        early = getattr(behaviour, "early", False)  # wants to read the body itself
        self.body = b"" if early else self.rfile.read(length)
        if behaviour is not None and behaviour(self, self.path):
            return
        body = self.body
        path = urlsplit(self.path).path
        if path == "/token":
            self._token(body)
        elif self._authorised():
            self._honest(path)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def answer(self, status: int, body: bytes = b"", headers: Optional[Dict[str, str]] = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reset(self) -> None:
        """Hang up with a TCP reset."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True
        self.connection.close()

    def blob(self, path: str) -> bytes:
        return self.registry.blobs[path.rpartition("/")[2]]

    def start(self) -> int:
        """Where the requested range begins, or 0."""
        value = self.headers.get("Range") or ""
        return int(value[6:].rstrip("-")) if value.startswith("bytes=") else 0

    def _authorised(self) -> bool:
        registry = self.registry
        if registry.auth is None:
            return True
        scheme, user, password = registry.auth
        given = self.headers.get("Authorization") or ""
        if scheme == "basic":
            wanted = "Basic " + base64.b64encode(("%s:%s" % (user, password)).encode()).decode()
            if given == wanted:
                return True
            challenge = 'Basic realm="fake"'
        else:
            with registry.lock:
                left = registry.tokens.get(given[len("Bearer ") :], 0)
                if left > 0:
                    registry.tokens[given[len("Bearer ") :]] = left - 1
                    return True
            realm = registry.realm or registry.url + "/token"
            challenge = 'Bearer realm="%s",service="fake",scope="repository:x:pull,push"' % realm
        body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
        self.answer(401, body, {"WWW-Authenticate": challenge})
        return False

    def _token(self, body: bytes) -> None:
        registry = self.registry
        _scheme, user, password = registry.auth or ("", "", "")
        given = self.headers.get("Authorization") or ""
        wanted = "Basic " + base64.b64encode(("%s:%s" % (user, password)).encode()).decode()
        refresh = parse_qs(body.decode()).get("refresh_token", [""])[0]
        if user and given != wanted and not (refresh and refresh == password):
            self.answer(401, b'{"details":"incorrect username or password"}')
            return
        with registry.lock:
            registry.issued += 1
            token = "token%d" % registry.issued
            registry.tokens[token] = registry.token_life
        self.answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    def _honest(self, path: str) -> None:
        if path == "/v2/":
            self.answer(200, b"{}", {"Docker-Distribution-API-Version": "registry/2.0"})
        elif "/blobs/uploads/" in path:
            self._upload(path)
        elif "/manifests/" in path:
            repository, _slash, reference = path[len("/v2/") :].partition("/manifests/")
            self._manifest(repository, reference)
        elif "/blobs/" in path:
            self._blob(path)
        elif path.endswith("/tags/list"):
            names = {tag for name, tag in self.registry.manifests if name == path[4:-10] and ":" not in tag}
            self._list("tags", sorted(names), path)
        elif path == "/v2/_catalog":
            self._list("repositories", sorted({name for name, _tag in self.registry.manifests}), path)
        else:
            self.answer(404, b'{"errors":[{"code":"NOT_FOUND","message":"no such thing"}]}')

    def _list(self, field: str, names: List[str], path: str) -> None:
        if field == "tags" and not names:
            self.answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}')
            return
        last = parse_qs(urlsplit(self.path).query).get("last", [""])[0]
        rest = [name for name in names if name > last]
        page = rest[: self.registry.page]
        headers = {}
        if len(page) < len(rest):
            headers["Link"] = '<%s?n=%d&last=%s>; rel="next"' % (path, len(page), page[-1])
        self.answer(200, json.dumps({field: page}).encode(), headers)

    def _upload(self, path: str) -> None:
        """One upload's life: POST begins (or mounts), PATCH adds, GET tells, PUT ends, DELETE forgets."""
        registry = self.registry
        name = path.rpartition("/")[2]
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        if len(self.body) > registry.body_limit:
            self.answer(413, b"<html>too large</html>", {"Content-Type": "text/html"})
        elif self.command == "POST":
            self._begin(path, query)
        elif name not in registry.uploads:
            self.answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"upload unknown"}]}')
        elif self.command == "DELETE":
            del registry.uploads[name]
            self.answer(204)
        elif self.command == "GET":
            self._progress(204, path, name)
        else:
            self._take(path, name, query)

    def _begin(self, path: str, query: Dict[str, str]) -> None:
        registry = self.registry
        if query.get("mount") in registry.blobs and registry.mountable:
            self.answer(201, b"", {"Location": path + query["mount"]})
            return
        with registry.lock:
            name = "upload%d" % (len(registry.uploads) + registry.begun)
            registry.begun += 1
            registry.uploads[name] = b""
        self._progress(202, path + name, name)

    def _take(self, path: str, name: str, query: Dict[str, str]) -> None:
        from helpers.images import digest_of

        registry = self.registry
        span = self.headers.get("Content-Range")
        if span and int(span.partition("-")[0]) != len(registry.uploads[name]):
            self._progress(416, path, name)
            return
        registry.uploads[name] += self.body
        if self.command == "PATCH":
            self._progress(202, path, name)
            return
        data = registry.uploads.pop(name)
        if digest_of(data) != query.get("digest"):
            self.answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}')
            return
        registry.blobs[digest_of(data)] = data
        self.answer(201, b"", {"Docker-Content-Digest": digest_of(data)})

    def _progress(self, status: int, path: str, name: str) -> None:
        size = len(self.registry.uploads[name])
        location = "%s%s?state=a%%2Fb" % (self.registry.upload_base, path)
        self.answer(status, b"", {"Location": location, "Range": "0-%d" % max(size - 1, 0)})

    def _manifest(self, repository: str, reference: str) -> None:
        from helpers.images import digest_of

        if self.command == "PUT":
            kind = self.headers.get("Content-Type") or ""
            missing = [one for one in _named(self.body) if one not in self.registry.blobs]
            if missing:
                text = '{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown %s"}]}' % missing[0]
                self.answer(400, text.encode())
                return
            for name in (reference, digest_of(self.body)):
                self.registry.manifests[(repository, name)] = (self.body, kind)
            self.answer(201, b"", {"Docker-Content-Digest": digest_of(self.body)})
            return
        found = self.registry.manifests.get((repository, reference))
        if found is None:
            self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            return
        data, kind = found
        headers = {"Content-Type": kind, "Docker-Content-Digest": digest_of(data)}
        if self.command == "HEAD":
            headers["Content-Length"] = str(len(data))
        self.answer(200, data, headers)

    def _blob(self, path: str) -> None:
        data = self.registry.blobs.get(path.rpartition("/")[2])
        start = self.start()
        if data is None:
            self.answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}')
        elif start >= len(data) and start:
            self.answer(416, b"", {"Content-Range": "bytes */%d" % len(data)})
        elif start:
            span = "bytes %d-%d/%d" % (start, len(data) - 1, len(data))
            self.answer(206, data[start:], {"Content-Range": span})
        else:
            self.answer(200, data)


def _named(manifest: bytes) -> List[str]:
    document = json.loads(manifest)
    return [one["digest"] for one in [document["config"], *document["layers"]]] if "config" in document else []


# -- behaviours ---------------------------------------------------------------------------------------------------


def status(code: int, body: bytes = b"", **headers: str) -> Behaviour:
    def act(handler: Handler, path: str) -> bool:
        handler.answer(code, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return True

    return act


def reset_after(count: int) -> Behaviour:
    """The honest head and ``count`` bytes of the blob, then a TCP reset."""

    def act(handler: Handler, path: str) -> bool:
        data, start = handler.blob(path), handler.start()
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + count])
        handler.reset()
        return True

    return act


def hang_up_after(count: int, keep: bool = True) -> Behaviour:
    """Take ``count`` bytes of an upload's body, then a TCP reset. ``keep``: they count as arrived."""

    def act(handler: Handler, path: str) -> bool:
        if "/blobs/uploads/" not in path or handler.command not in ("PATCH", "PUT"):
            handler.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
            return False
        data = handler.rfile.read(min(count, int(handler.headers.get("Content-Length") or 0)))
        name = urlsplit(path).path.rpartition("/")[2]
        if keep and name in handler.registry.uploads:
            handler.registry.uploads[name] += data
        handler.reset()
        return True

    act.early = True  # type: ignore[attr-defined]
    return act


def body_of(data: bytes, *, length: Optional[int] = None) -> Behaviour:
    """Other bytes than the honest ones, and with ``length`` a Content-Length that lies (the connection closes)."""

    def act(handler: Handler, path: str) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) if length is None else length))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True
        return True

    return act


def chunked(data: bytes, *, broken: bool = False) -> Behaviour:
    """``data`` in chunked transfer coding without a length; ``broken`` leaves out the last chunk."""

    def act(handler: Handler, path: str) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for start in range(0, len(data), 1000):
            part = data[start : start + 1000]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        if broken:
            handler.reset()
        else:
            handler.wfile.write(b"0\r\n\r\n")
        return True

    return act


def ignore_range() -> Behaviour:
    """200 and everything, whatever range was asked for."""

    def act(handler: Handler, path: str) -> bool:
        handler.answer(200, handler.blob(path))
        return True

    return act


def redirect(url: str, code: int = 307) -> Behaviour:
    """To ``url``; a path there stays what it was when ``url`` ends in ``*``."""

    def act(handler: Handler, path: str) -> bool:
        handler.answer(code, b"", {"Location": url[:-1] + path if url.endswith("*") else url})
        return True

    return act


def drip(total: int, pause: float) -> Behaviour:
    """One byte of the body every ``pause`` seconds."""

    def act(handler: Handler, path: str) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(total))
        handler.end_headers()
        for _n in range(total):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(pause)
        return True

    return act


def drip_headers(pause: float, count: int = 1000) -> Behaviour:
    """Headers that never end, a few bytes at a time."""

    def act(handler: Handler, path: str) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _n in range(count):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(pause)
        return True

    return act


HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


def web_page() -> Behaviour:
    return status(200, HTML, Content_Type="text/html; charset=utf-8")
