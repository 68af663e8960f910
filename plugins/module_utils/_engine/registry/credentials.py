# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Logins: read from the engine's file and from those of Docker and Podman, written to the engine's only.

The format is Docker's config.json: ``{"auths": {host: {"auth": base64("user:password")}}}``; unknown keys are kept.
Docker Hub's key is ``https://index.docker.io/v1/``.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..errors import AuthError, KernelError, StateError, UsageError
from ..tuples import NamedTuple

if TYPE_CHECKING:
    from .transport import Transport

HUB_KEY = "https://index.docker.io/v1/"
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_FILE_LIMIT = 4 << 20


class Credential(NamedTuple):
    """``identity_token`` is an OAuth2 refresh token, ``registry_token`` a bearer token to use as it is; ``source`` the
    file it came from."""

    username: str
    password: str
    identity_token: str = ""
    registry_token: str = ""
    source: str = ""

    def __repr__(self) -> str:  # never into a traceback or a log
        return "Credential(%r, source=%r)" % (self.username, self.source)


def lookup(auth_file: str, host: str, repository: str = "") -> Optional[Credential]:
    """The login for ``host`` (as references name it): from ``auth_file``, then ``$REGISTRY_AUTH_FILE``, Podman's and
    Docker's files. A key with a repository path (``host/team``) is taken for what lies below it.

    Last comes what the environment says about Amazon's registry (``ecr``).

    Raises ``StateError`` for a damaged ``auth_file``; damaged foreign files are passed over. Raises ``AuthError`` or
    ``TimedOut`` when a helper or Amazon fails.
    """
    for path in (auth_file, *_foreign_files()):
        try:
            document = _load(path)
        except StateError:
            if path == auth_file:
                raise
            continue
        found = _find(document, host, repository, path)
        if found is not None:
            return found
    if host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        from . import ecr

        return ecr.credential(host)
    return None


def _foreign_files() -> list[str]:
    environment = os.environ
    home = environment.get("HOME") or "/root"
    paths = [environment.get("REGISTRY_AUTH_FILE") or ""]
    if environment.get("XDG_RUNTIME_DIR"):
        paths.append(environment["XDG_RUNTIME_DIR"] + "/containers/auth.json")
    paths.append((environment.get("XDG_CONFIG_HOME") or home + "/.config") + "/containers/auth.json")
    paths.append((environment.get("DOCKER_CONFIG") or home + "/.docker") + "/config.json")
    return [path for path in paths if path]


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            data = stream.read(_FILE_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise StateError(
            "Cannot read %s: %s" % (path, error.strerror), step="read_logins", path=path, errno=error.errno
        )
    return read_document(data, path)


def read_document(data: bytes, path: str) -> dict[str, Any]:
    """What a file of logins holds. Raises ``StateError`` for anything else."""
    try:
        document = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("auths") or {}, dict) or len(data) > _FILE_LIMIT:
        raise StateError(
            "%s is not a file of registry logins" % path,
            step="read_logins",
            path=path,
            hint="Repair or remove the file and log in again.",
        )
    return document


def stored(auth_file: str, host: str) -> Optional[Credential]:
    """The login for ``host`` in the engine's own file; no helper is asked. Raises ``StateError``."""
    return _entry(_load(auth_file), host, "", auth_file)


def _find(document: dict[str, Any], host: str, repository: str, path: str) -> Optional[Credential]:
    helper = _helper(document, host)
    if helper:
        from .helpers import ask

        found = ask(helper, HUB_KEY if host in _HUB_NAMES else host, path)
        if found is not None:
            return found
    return _entry(document, host, repository, path)


def _entry(document: dict[str, Any], host: str, repository: str, path: str) -> Optional[Credential]:
    auths = document.get("auths") or {}
    for key in _keys(host, repository):
        if isinstance(auths.get(key), dict):
            return _decode(auths[key], path)
    wanted = _HUB_NAMES if host in _HUB_NAMES else (host,)
    for key, entry in auths.items():  # old keys carry a scheme and a path
        bare = key.partition("://")[2].partition("/")[0] if "://" in key else ""
        if bare in wanted and isinstance(entry, dict):
            return _decode(entry, path)
    return None


def _keys(host: str, repository: str) -> list[str]:
    parts = repository.split("/") if repository else []
    keys = ["/".join([host, *parts[:count]]) for count in range(len(parts), -1, -1)]
    return [*keys, HUB_KEY, *_HUB_NAMES] if host in _HUB_NAMES else keys


def _decode(entry: dict[str, Any], path: str) -> Optional[Credential]:
    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    username, password = text("username"), text("password")
    if text("auth"):
        try:
            pair = base64.b64decode(text("auth"), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            pair = ""
        name, colon, secret = pair.partition(":")
        if colon:
            username, password = name, secret.rstrip("\0")
    found = Credential(username, password, text("identitytoken"), text("registrytoken"), path)
    return found if found.username or found.identity_token or found.registry_token else None


def _helper(document: dict[str, Any], host: str) -> str:
    helpers = document.get("credHelpers")
    name = helpers.get(host) if isinstance(helpers, dict) else None
    name = name or document.get("credsStore")
    # The name becomes a program's; a path in it would run any file.
    good = isinstance(name, str) and name and name.replace("-", "").replace("_", "").isalnum()
    return str(name) if good else ""


def login(
    transport: Transport,
    auth_file: str,
    host: str,
    username: str,
    password: str,
    *,
    force: bool = False,
    check: bool = False,
) -> bool:
    """Verify the login against the registry and store it. Returns whether the file is (with ``check``: would be)
    changed. A login that is stored already is not verified again unless ``force``.

    Raises ``AuthError`` when the registry refuses it, ``RegistryError`` when it cannot be asked.
    """
    from .client import RegistryClient

    if not username or ":" in username or not username.isprintable():
        raise UsageError(
            "A registry's user name must not be empty nor contain a colon or control characters",
            step="registry_login",
            path="username",
        )
    entry = stored(auth_file, host)
    same = entry is not None and (entry.username, entry.password) == (username, password)
    if same and not force:
        return False
    answer = RegistryClient(host, transport.logged_in_as(Credential(username, password))).ping()
    if answer["auth"] != "none" and not answer["logged_in"]:
        raise AuthError("%s refused the login of %s" % (host, username), step="registry_login", subject=host)
    if same or check:
        return not same
    pair = base64.b64encode(("%s:%s" % (username, password)).encode()).decode("ascii")
    _update(auth_file, host, {"auth": pair})
    return True


def logout(auth_file: str, host: str, *, check: bool = False) -> bool:
    """Forget the login for ``host``. Returns whether there was one in ``auth_file``."""
    auths = _load(auth_file).get("auths") or {}
    if not any(_belongs(key, host) for key in auths):
        return False
    if not check:
        _update(auth_file, host, None)
    return True


def _belongs(key: str, host: str) -> bool:
    bare = key.partition("://")[2].partition("/")[0] if "://" in key else key
    return bare == host or (host in _HUB_NAMES and bare in _HUB_NAMES)


def _update(path: str, host: str, entry: Optional[dict[str, str]]) -> None:
    def change() -> dict[str, Any]:
        document = _load(path)
        auths = document.get("auths") or {}
        kept = {key: value for key, value in auths.items() if not _belongs(key, host)}
        if entry is not None:
            kept[HUB_KEY if host in _HUB_NAMES else host] = entry
        document["auths"] = kept
        return document

    locked_replace(path, change, host)


def locked_replace(path: str, change: Callable[[], dict[str, Any]], subject: str) -> None:
    """Write what ``change`` makes of the JSON file at ``path`` in one step (temporary file 0600, fsync, rename); two
    tasks that do it at once wait for each other on ``<file>.lock``."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _replace(path, json.dumps(change(), indent=1).encode() + b"\n")
        finally:
            os.close(lock)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot write %s" % path, step="store_login", subject=subject) from error


def _replace(path: str, data: bytes) -> None:
    temporary = path + ".new"  # under the lock: nobody else writes it, and a leftover is overwritten
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
