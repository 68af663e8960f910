# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``certs.d``: authorities and client certificates per registry, where Docker and Podman look for them.

``<directory>/<host[:port]>/`` holds ``*.crt`` (authorities, trusted beside the system's) and pairs ``NAME.cert`` and
``NAME.key`` (what we show of ourselves). The first directory that knows the host is taken, as Podman does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    import ssl

DIRECTORIES = ("/etc/containers/certs.d", "/etc/docker/certs.d")
_HUB = ("registry-1.docker.io", "index.docker.io")


def directory_for(scheme: str, host: str, port: int) -> str:
    """The directory for an origin, or "". Only https has one."""
    if scheme != "https":
        return ""
    shown = "[%s]" % host if ":" in host else host
    names = ["%s:%d" % (shown, port)] + ([shown] if port == 443 else [])
    if port == 443 and host in _HUB:
        names.append("docker.io")
    for base in DIRECTORIES:
        for name in names:
            path = "%s/%s" % (base, name)
            if os.path.isdir(path):
                return path
    return ""


def has_authorities(directory: str) -> bool:
    return bool(directory) and any(name.endswith(".crt") for name in _names(directory))


def load(context: ssl.SSLContext, directory: str) -> None:
    """Raises ``UsageError`` for a certificate without its key, or either unreadable."""
    import ssl

    names = _names(directory)
    for name in names:
        path = "%s/%s" % (directory, name)
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(cafile=path)
            elif name.endswith(".cert"):
                key = name[: -len("cert")] + "key"
                if key not in names:
                    _refuse(directory, "%s has no key %s" % (name, key))
                context.load_cert_chain(path, "%s/%s" % (directory, key), password=_no_password)
            elif name.endswith(".key") and name[: -len("key")] + "cert" not in names:
                # Docker says the same: somebody named the certificate .crt, and it would be taken for an authority.
                _refuse(directory, "%s has no certificate %scert" % (name, name[: -len("key")]))
        except (OSError, ssl.SSLError, ValueError) as error:
            _refuse(directory, "%s cannot be used: %s" % (name, getattr(error, "strerror", None) or error))


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError as error:
        _refuse(directory, error.strerror or str(error))
        return []


def _no_password() -> str:
    # Without this, OpenSSL would ask for one on the terminal.
    raise ValueError("the key is encrypted, and there is nobody to ask for its password")


def _refuse(directory: str, why: str) -> None:
    raise UsageError(
        "Cannot use the certificates in %s: %s" % (directory, why), step="registry_connect", path=directory
    )
