# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry needs beside its configuration, made where it runs; the role hands this text to ``python -c``.

    certificate DIRECTORY DAYS NAME...   an authority (ca.crt, ca.key) and a certificate by it (tls/server.crt, .key)
    htpasswd FILE GROUP                  users, as a JSON list on standard input: passwords are in no command line
    trial PROGRAM CONFIG                 whether a registry comes up with a configuration, on an empty store

``--check`` first: tell, and change nothing. Answers with ``{"changed": bool, "why": text}``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import grp
import hmac
import ipaddress
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any, Dict, Iterator, List

RENEW = 30 * 24 * 3600  # seconds before its end at which a certificate is made anew
COST = "10"
ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def main(arguments: List[str]) -> None:
    check = arguments[:1] == ["--check"]
    command, *rest = arguments[1:] if check else arguments
    if command == "certificate":
        answer = certificate(check, rest[0], int(rest[1]), rest[2:])
    elif command == "htpasswd":
        answer = htpasswd(check, rest[0], rest[1], json.load(sys.stdin))
    else:
        answer = trial(rest[0], rest[1])
    print(json.dumps({"changed": bool(answer), "why": answer}))


def write(path: str, data: bytes, mode: int, gid: int = 0) -> None:
    """Whole or not at all; never readable for others for a moment."""
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as stream:
        os.fchown(fd, 0, gid)
        os.fchmod(fd, mode)
        stream.write(data)
        stream.flush()
        os.fsync(fd)
    os.rename(path + ".new", path)


# -- certificates -------------------------------------------------------------------------------------------------


def openssl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("openssl")
    if program is None:
        sys.exit("registry_tls=own_ca needs the openssl program on the registry's host, and it is not there")
    return subprocess.run([program, *arguments], capture_output=True, check=False)


def certificate(check: bool, directory: str, days: int, names: List[str]) -> str:
    wanted = sorted(set(subject_names(names)))
    paths = {name: os.path.join(directory, name) for name in ("ca.crt", "ca.key", "tls/server.crt", "tls/server.key")}
    why = unfit(paths, wanted)
    if not why or check:
        return why
    if not all(os.path.exists(paths[name]) for name in ("ca.crt", "ca.key")) or ends(paths["ca.crt"]):
        make_authority(paths)
    work = tempfile.mkdtemp(dir=directory, prefix=".tls-")
    try:
        make_certificate(paths, work, days, wanted)
    finally:
        shutil.rmtree(work)
    return why


def subject_names(names: List[str]) -> Iterator[str]:
    for name in names:
        try:
            found = "IP:%s" % ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            if not name or not set(name.lower()) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-*_"):
                sys.exit("registry_names: %r is neither an address nor a host name" % name)
            found = "DNS:" + name.lower()
        yield found


def ends(path: str) -> bool:
    return openssl("x509", "-in", path, "-noout", "-checkend", str(RENEW)).returncode != 0


def unfit(paths: Dict[str, str], wanted: List[str]) -> str:
    for name, path in paths.items():
        if not os.path.exists(path):
            return "%s is missing" % name
    for name in ("ca.crt", "tls/server.crt"):
        if ends(paths[name]):
            return "%s ends soon" % name
    if openssl("verify", "-CAfile", paths["ca.crt"], paths["tls/server.crt"]).returncode:
        return "tls/server.crt is not by ca.crt"
    shown = openssl("x509", "-in", paths["tls/server.crt"], "-noout", "-ext", "subjectAltName").stdout.decode()
    listed = shown.partition("\n")[2].replace("IP Address:", "IP:")
    found = sorted({normal(one.strip()) for one in listed.split(",") if one.strip()})
    return "" if found == wanted else "the names are %s, and not %s" % (", ".join(found), ", ".join(wanted))


def normal(name: str) -> str:
    return "IP:%s" % ipaddress.ip_address(name[3:]) if name.startswith("IP:") else name


def must(*arguments: str) -> None:
    done = openssl(*arguments)
    if done.returncode:
        sys.exit("openssl %s failed: %s" % (arguments[0], done.stderr.decode("utf-8", "replace").strip()))


EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_authority(paths: Dict[str, str]) -> None:
    os.umask(0o077)
    extensions = (
        "-addext",
        "basicConstraints=critical,CA:TRUE,pathlen:0",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    )
    subject = "/CN=wharf registry authority of %s" % socket.gethostname().replace("/", "_")[:40]
    new = (paths["ca.key"] + ".new", paths["ca.crt"] + ".new")
    must("req", "-x509", *EC_KEY, "-subj", subject, *extensions, "-days", "3650", "-keyout", new[0], "-out", new[1])
    os.rename(new[0], paths["ca.key"])
    os.chmod(new[1], 0o644)
    os.rename(new[1], paths["ca.crt"])


def make_certificate(paths: Dict[str, str], work: str, days: int, wanted: List[str]) -> None:
    os.umask(0o077)
    key, request, made, extensions = (os.path.join(work, name) for name in ("key", "csr", "crt", "ext"))
    with open(extensions, "w") as stream:
        stream.write("subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n" % ",".join(wanted))
    must("req", *EC_KEY, "-subj", "/CN=wharf registry", "-keyout", key, "-out", request)
    serial = "0x" + secrets.token_hex(15)
    by = ("-CA", paths["ca.crt"], "-CAkey", paths["ca.key"], "-set_serial", serial)
    must("x509", "-req", "-in", request, *by, "-days", str(days), "-extfile", extensions, "-out", made)
    gid = os.stat(os.path.dirname(paths["tls/server.key"])).st_gid
    with open(key, "rb") as stream:
        write(paths["tls/server.key"], stream.read(), 0o640, gid)
    with open(made, "rb") as stream:
        write(paths["tls/server.crt"], stream.read(), 0o644, gid)


# -- users --------------------------------------------------------------------------------------------------------


def bcrypt(password: bytes, setting: bytes) -> bytes:
    """By the C library's crypt (libxcrypt, musl): the one place where every distribution has it."""
    for name in ("libcrypt.so.1", "libcrypt.so.2", ctypes.util.find_library("crypt"), None):
        try:
            function = ctypes.CDLL(name).crypt
        except (OSError, AttributeError):
            continue
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_char_p, ctypes.c_char_p]
        made = function(password, setting)
        if made is not None and made.startswith(setting[:7]):
            return bytes(made)
    sys.exit(
        "This host's crypt does not know bcrypt, the only kind of hash that the registry reads; give password_hash "
        "(from htpasswd -nB) instead of password"
    )


def htpasswd(check: bool, path: str, group: str, users: List[Dict[str, Any]]) -> str:
    known = read(path)
    lines, seen = [], set()
    for user in users:
        name = str(user.get("name") or "")
        if not name or ":" in name or not name.isprintable() or name in seen:
            sys.exit("registry_users: %r is no user name, or given twice" % name)
        seen.add(name)
        lines.append((name, hashed(name, user, known.get(name, ""))))
    text = "".join("%s:%s\n" % line for line in lines).encode()
    gid = grp.getgrnam(group).gr_gid if group else 0
    if known_text(path) == text and (os.stat(path).st_gid, os.stat(path).st_mode & 0o777) == (gid, 0o640):
        return ""
    if not check:
        write(path, text, 0o640, gid)
    gone = sorted(set(known) - seen)
    altered = sorted(name for name, value in lines if known.get(name) != value)
    return "set: %s; removed: %s" % (", ".join(altered) or "nobody", ", ".join(gone) or "nobody")


def known_text(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return b""


def read(path: str) -> Dict[str, str]:
    lines = known_text(path).decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def hashed(name: str, user: Dict[str, Any], before: str) -> str:
    """The hash that is there when it is one of this password: a new salt every time would be a change every time."""
    if user.get("password_hash"):
        value = str(user["password_hash"])
        if not value.startswith(("$2a$", "$2b$", "$2y$")) or len(value) != 60:
            sys.exit("registry_users: the password_hash of %s is none of bcrypt" % name)
        return value
    password = str(user.get("password") or "").encode()
    if not password:
        sys.exit("registry_users: %s has neither password nor password_hash" % name)
    if len(password) > 72 or b"\0" in password:
        sys.exit("registry_users: the password of %s is longer than the 72 bytes that bcrypt looks at" % name)
    if (
        before.startswith("$2")
        and len(before) == 60
        and hmac.compare_digest(bcrypt(password, before.encode()), before.encode())
    ):
        return before
    salt = "".join(secrets.choice(ALPHABET) for _n in range(21)) + secrets.choice(".Oeu")
    return bcrypt(password, ("$2b$%s$%s" % (COST, salt)).encode()).decode()


# -- trial --------------------------------------------------------------------------------------------------------


def trial(program: str, config: str) -> str:
    """The registry itself is the only one who knows its configuration. Ends when it answers, or when it gives up."""
    store = tempfile.mkdtemp(prefix="registry-trial-")
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "REGISTRY_HTTP_ADDR": "127.0.0.1:0",
        "REGISTRY_HTTP_DEBUG_ADDR": "127.0.0.1:%d" % port,
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": store,
        "OTEL_TRACES_EXPORTER": "none",
    }
    try:
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen([program, "serve", config], stdout=log, stderr=log, env=environment)
            try:
                answered = answers(process, port)
            finally:
                process.kill()
                process.wait()
            log.seek(0)
            # Where it panics, what it has to say comes before the stacks of its goroutines.
            words = log.read().decode("utf-8", "replace").partition("\ngoroutine ")[0][-1500:].strip()
        if not answered:
            sys.exit("The registry does not come up with this configuration: %s" % words)
    finally:
        shutil.rmtree(store)
    return ""


def answers(process: subprocess.Popen[bytes], port: int) -> bool:
    steady = 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d/debug/health" % port, timeout=5) as response:
                steady += response.status == 200
        except OSError:
            steady = 0
        if steady == 3:  # it serves this before it has read its certificate
            return process.poll() is None
        time.sleep(0.2)
    return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    main(sys.argv[1:])
