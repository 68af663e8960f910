# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` of the task's environment, read as curl and Go read them."""

from __future__ import annotations

import os


def proxy_for(scheme: str, host: str, port: int) -> str:
    """The proxy's URL, or "". Loopback is never proxied."""
    value = _environment(scheme + "_proxy")
    if not value or host == "localhost" or host.startswith("127.") or host == "::1" or _exempt(host, port):
        return ""
    return value if "://" in value else "http://" + value


def _environment(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def _exempt(host: str, port: int) -> bool:
    for item in _environment("no_proxy").split(","):
        item = item.strip().lower()
        if item == "*":
            return True
        name, colon, wanted = item.rpartition(":")
        if colon and wanted.isdigit() and name.count(":") == 0:
            if int(wanted) != port:
                continue
            item = name
        if item and (_same_name(host, item) or ("/" in item and _inside(host, item))):
            return True
    return False


def _same_name(host: str, item: str) -> bool:
    item = item.strip("[]").lstrip("*")
    return host == item.lstrip(".") or host.endswith("." + item.lstrip("."))


def _inside(host: str, network: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
