# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real registry for tests: Debian's docker-registry on 127.0.0.1, with TLS and htpasswd if wanted.

with Registry(str(tmp_path)) as registry:
    registry.push_layout("/tmp/layout:1", "team/app:1")
    ... registry.host ...
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from typing import Any, Dict, List, Optional, Tuple

PROGRAM = "/usr/bin/docker-registry"

_CONFIG = """\
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %(root)s}
  delete: {enabled: true}
http:
  addr: 127.0.0.1:%(port)d
  host: %(scheme)s://127.0.0.1:%(port)d
"""
_TLS = "  tls: {certificate: %(cert)s, key: %(key)s}\n"
_AUTH = "auth:\n  htpasswd: {realm: wharf-tests, path: %(htpasswd)s}\n"


class Registry:
    """``directory`` holds configuration, certificates and storage; it is kept, so a registry can be started again on
    it. ``users``: (name, password) for htpasswd. ``storage``: where the blobs are (below ``directory`` by default).
    ``tokens``: a ``helpers.token_server.TokenServer`` instead of htpasswd; ``users`` is then who skopeo logs in as."""

    def __init__(
        self,
        directory: str,
        *,
        tls: bool = False,
        users: Optional[Tuple[str, str]] = None,
        storage: Optional[str] = None,
        tokens: Any = None,
    ) -> None:
        self.directory = os.path.join(directory, "registry")
        self.storage = storage or os.path.join(self.directory, "storage")
        self.tls = tls
        self.users = users
        self.tokens = tokens
        self.port = 0
        self._process: Optional[subprocess.Popen[bytes]] = None
        os.makedirs(self.storage, exist_ok=True)
        if tls:
            make_certificates(self.directory)

    @property
    def host(self) -> str:
        return "127.0.0.1:%d" % self.port

    @property
    def url(self) -> str:
        return "%s://%s" % ("https" if self.tls else "http", self.host)

    @property
    def ca(self) -> str:
        """The authority's certificate (PEM)."""
        return os.path.join(self.directory, "ca.crt")

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the registry is not running")
        return self._process.pid

    def start(self) -> Registry:
        for _attempt in range(5):  # somebody may take the port between choosing and binding it
            self.port = self.port or free_port()
            self._process = subprocess.Popen(
                [PROGRAM, "serve", self._write_config()],
                stdout=subprocess.DEVNULL,
                stderr=open(os.path.join(self.directory, "log"), "ab"),
                env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            )
            if self._wait():
                return self
            self.stop()
            self.port = 0
        raise RuntimeError("docker-registry does not start; see %s/log" % self.directory)

    def _wait(self) -> bool:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            except OSError:
                time.sleep(0.02)
        return False

    def stop(self, kill: bool = False) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Registry:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _write_config(self) -> str:
        names: Dict[str, Any] = {
            "root": self.storage,
            "port": self.port,
            "scheme": "https" if self.tls else "http",
            "cert": os.path.join(self.directory, "server.crt"),
            "key": os.path.join(self.directory, "server.key"),
            "htpasswd": os.path.join(self.directory, "htpasswd"),
        }
        text = _CONFIG + (_TLS if self.tls else "")
        if self.tokens is not None:
            text += self.tokens.config
        elif self.users is not None:
            text += _AUTH
            made = subprocess.run(["htpasswd", "-nbB", "-C", "5", *self.users], check=True, capture_output=True)
            with open(names["htpasswd"], "wb") as stream:
                stream.write(made.stdout)
        path = os.path.join(self.directory, "config.yml")
        with open(path, "w") as stream:
            stream.write(text % names)
        return path

    def push_layout(self, layout: str, name: str, *options: str) -> None:
        """Copy ``DIRECTORY:TAG`` (an OCI layout) to ``repository:tag`` with skopeo."""
        self.skopeo("copy", *options, "oci:" + layout, "docker://%s/%s" % (self.host, name))

    def skopeo(self, command: str, *arguments: str) -> bytes:
        """Run skopeo against this registry, with its certificate unverified and its user's login."""
        login: List[str] = []
        kind = "--dest-" if command == "copy" else "--"
        login.append(kind + "tls-verify=false")
        if self.users is not None:
            login.append("%screds=%s:%s" % (kind, *self.users))
        done = subprocess.run(
            ["skopeo", "--insecure-policy", command, *login, *arguments],
            check=True,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": self.directory, "XDG_RUNTIME_DIR": self.directory},
        )
        return done.stdout

    def blob_path(self, digest: str) -> str:
        """The file that holds a blob (for tests that damage it)."""
        hexes = digest.partition(":")[2]
        return "%s/docker/registry/v2/blobs/sha256/%s/%s/data" % (self.storage, hexes[:2], hexes)


def available() -> bool:
    return os.path.exists(PROGRAM) and shutil.which("skopeo") is not None


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_certificates(directory: str) -> None:
    """An authority (``ca.crt``) and a server certificate for 127.0.0.1, ::1 and localhost, with openssl."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "server.ext"), "w") as stream:
        stream.write("subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    authority = ["-subj", "/CN=wharf test authority", "-addext", "basicConstraints=critical,CA:TRUE"]
    authority += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    openssl("req", "-x509", *key, *authority, "-days", "2", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *key, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr")
    signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "server.ext"]
    openssl("x509", "-req", "-in", "server.csr", *signing, "-out", "server.crt")


def sign_anew(directory: str, names: str, days: int) -> None:
    """Another server certificate by the authority that ``make_certificates`` made, for ``names`` (``IP:...,DNS:...``).
    ``days``: how long it is good for; -1 until an hour ago, 0 from tomorrow on."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    def read(name: str) -> bytes:
        with open(os.path.join(directory, name), "rb") as stream:
            return stream.read()

    authority = x509.load_pem_x509_certificate(read("ca.crt"))
    key = serialization.load_pem_private_key(read("ca.key"), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    begin, end = {-1: (now - 2 * day, now - day / 24), 0: (now + day, now + 2 * day)}.get(
        days, (now - day, now + days * day)
    )
    kinds = {"IP": lambda text: x509.IPAddress(ipaddress.ip_address(text)), "DNS": x509.DNSName}
    alternatives = [kinds[name.partition(":")[0]](name.partition(":")[2]) for name in names.split(",")]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.subject)
        .public_key(serialization.load_pem_private_key(read("server.key"), None).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    with open(os.path.join(directory, "server.crt"), "wb") as stream:
        stream.write(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
