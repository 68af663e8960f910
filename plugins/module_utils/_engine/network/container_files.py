# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes a container's ``hosts``, ``hostname`` and ``resolv.conf`` from its records, and brings them up to date when
it joins or leaves a network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import KernelError
from . import bridge, files

if TYPE_CHECKING:
    from ..paths import Paths
    from ..store.records import ContainerRecord, EndpointRecord, NetworkRecord

Members = Sequence[tuple["NetworkRecord", "EndpointRecord"]]
_LIMIT = 1 << 20  # characters; a container can write to its files
_MARK = ".resolv.conf.sha256"


def directory(paths: Paths, container_id: str) -> str:
    return paths.container(container_id) + "/files"


def hostname(container: ContainerRecord) -> str:
    if container.spec.get("network_mode") == "host" and not container.spec.get("hostname"):
        return os.uname().nodename
    return str(container.spec.get("hostname") or container.id[:12])


def uses_resolver(members: Members) -> bool:
    """Containers on a network that somebody made ask our resolver; the default network has none (docker.md S-80)."""
    return any(network.name != bridge.DEFAULT_NETWORK for network, _endpoint in members)


def write(paths: Paths, container: ContainerRecord, members: Members, host_gateway: str) -> None:
    """All three files, as at the start of a container and when one is not as it was made: what a task describes is
    the whole truth, so nobody's edits stay."""
    target = _directory(paths, container.id)
    if _is_edited(target):
        os.unlink(target + "/" + _MARK)
    files.write_in_place(target + "/hostname", hostname(container) + "\n")
    files.write_in_place(target + "/hosts", _hosts(container, members, host_gateway))
    write_resolv(paths, container, members)


def update(paths: Paths, container: ContainerRecord, before: Members, after: Members) -> None:
    """After a live change: only our lines of hosts change; resolv.conf is switched with the first or last network
    that has a resolver."""
    path = _directory(paths, container.id) + "/hosts"
    old, new = _endpoint_lines(container, before), _endpoint_lines(container, after)
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise KernelError.wrap(error, "Cannot read %s" % path, step="write_container_files") from error
    files.write_in_place(path, files.update_lines(text, set(old) - set(new), new))
    write_resolv(paths, container, after)


def differences(paths: Paths, container: ContainerRecord, members: Members, host_gateway: str) -> list[str]:
    """One sentence for each file that somebody has edited since it was made. The lines of hosts come in any order:
    networks come and go."""
    target = directory(paths, container.id)
    found = []
    if _read(target + "/hostname") != hostname(container) + "\n":
        found.append("/etc/hostname is not as it was made")
    if sorted((_read(target + "/hosts") or "").splitlines()) != sorted(
        _hosts(container, members, host_gateway).splitlines()
    ):
        found.append("/etc/hosts is not as it was made")
    if _is_edited(target):
        found.append("/etc/resolv.conf is not as it was made")
    return found


def stamp(paths: Paths, container_id: str) -> list[list[int]]:
    """What changes when somebody writes to one of the files. Raises ``OSError``."""
    target = directory(paths, container_id)
    stats = [os.stat("%s/%s" % (target, name)) for name in ("hosts", "hostname", "resolv.conf")]
    return [[info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns] for info in stats]


def _is_edited(target: str) -> bool:
    """Whether resolv.conf is not what was written last, in the container or by an administrator. It is not computed
    anew: the host's own may have changed since, which is nobody's edit."""
    current, written = _read(target + "/resolv.conf"), _read("%s/%s" % (target, _MARK))
    return current is not None and written is not None and _digest(current) != written.strip()


def write_resolv(paths: Paths, container: ContainerRecord, members: Members) -> bool:
    target = _directory(paths, container.id)
    path, mark = target + "/resolv.conf", target + "/" + _MARK
    text = _resolv(container, members)
    written = _read(mark)
    current = _read(path)
    if _is_edited(target):
        return False  # the next task sees it
    # No mark while file and mark differ: killed in between, the next call writes both again.
    if current != text and written is not None:
        os.unlink(mark)
    changed = files.write_in_place(path, text)
    files.write_in_place(mark, _digest(text) + "\n")
    return changed


def _directory(paths: Paths, container_id: str) -> str:
    target = directory(paths, container_id)
    try:
        os.makedirs(target, mode=0o755, exist_ok=True)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot create %s" % target, step="write_container_files") from error
    return target


def _hosts(container: ContainerRecord, members: Members, host_gateway: str) -> str:
    spec = container.spec
    extra: dict[str, Any] = dict(spec.get("etc_hosts") or {})
    if spec.get("network_mode") == "host":
        text = _read("/etc/hosts") or files.hosts_text("localhost", [])
        return text + "".join(
            "%s\t%s\n" % (host_gateway if address == "host-gateway" else address, name)
            for name, address in extra.items()
        )
    return files.hosts_text(
        hostname(container),
        _addresses(members),
        domainname=str(spec.get("domainname") or ""),
        extra=extra,
        ipv6=_loopback_ipv6(container),
        host_gateway=host_gateway,
    )


def _addresses(members: Members) -> list[str]:
    return [address for _network, e in members for address in (e.ipv4, e.ipv6) if address]


def _endpoint_lines(container: ContainerRecord, members: Members) -> list[str]:
    domainname = str(container.spec.get("domainname") or "")
    return files.endpoint_lines(hostname(container), domainname, _addresses(members)).splitlines()


def _loopback_ipv6(container: ContainerRecord) -> bool:
    sysctls = container.spec.get("sysctls") or {}
    off = any(str(sysctls.get("net.ipv6.conf.%s.disable_ipv6" % name)) == "1" for name in ("all", "lo"))
    return not off and os.path.exists("/proc/sys/net/ipv6")


def _resolv(container: ContainerRecord, members: Members) -> str:
    spec = container.spec
    if spec.get("network_mode") == "host" and not any(
        spec.get(key) for key in ("dns_servers", "dns_opts", "dns_search_domains")
    ):
        return _read("/etc/resolv.conf") or files.HEADER
    return files.resolv_text(
        files.host_resolver(),
        internal=uses_resolver(members),
        dns_servers=spec.get("dns_servers") or (),
        search=spec.get("dns_search_domains"),
        options=spec.get("dns_opts"),
        ipv6=any(endpoint.ipv6 for _network, endpoint in members),
        loopback=spec.get("network_mode") == "host",
    )


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_LIMIT)
    except OSError:  # absent is what is asked here; anything else shows when it is written
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
