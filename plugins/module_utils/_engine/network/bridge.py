# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bridge of a network: made, repaired, looked at, removed. Everything here can be repeated at any time.

A bridge we made is known by its MAC, which is derived from the network's id: a bridge that was there before (option
``com.docker.network.bridge.name``) gets our addresses, and is never deleted or given another MAC.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Optional

from ..errors import Conflict, KernelError, Unsupported, UsageError
from .sandbox import read_sysctl, write_sysctl

if TYPE_CHECKING:
    from ..kernel.netlink import Link, Netlink
    from ..paths import Paths
    from ..store.records import NetworkRecord

NAME_OPTION = "com.docker.network.bridge.name"
MTU_OPTION = "com.docker.network.driver.mtu"
HOST_BINDING_OPTION = "com.docker.network.bridge.host_binding_ipv4"
PREFIX_OPTION = "com.docker.network.container_iface_prefix"
_ENABLE_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_ENABLE_ICC = "com.docker.network.bridge.enable_icc"
_HARMLESS = (  # what we do anyway
    ("com.docker.network.bridge.default_bridge", "true"),
    ("com.docker.network.bridge.default_bridge", "false"),
    ("com.docker.network.bridge.gateway_mode_ipv4", "nat"),
    ("com.docker.network.bridge.gateway_mode_ipv6", "nat"),
    ("com.docker.network.bridge.inhibit_ipv4", "false"),
)
_KNOWN = (NAME_OPTION, MTU_OPTION, HOST_BINDING_OPTION, PREFIX_OPTION, _ENABLE_MASQUERADE, _ENABLE_ICC)
DEFAULT_NETWORK = "bridge"
_FALLBACK_MTU = 1500


def option(record: NetworkRecord, name: str) -> Optional[str]:
    value = (record.spec.get("driver_options") or {}).get(name)
    return None if value is None else str(value)


def flag(record: NetworkRecord, name: str, default: bool) -> bool:
    """A boolean driver option as Docker's ``strconv.ParseBool`` reads it."""
    text = option(record, name)
    if text is None:
        return default
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError("driver option %s of network %s is not a boolean: %r" % (name, record.name, text), path=name)


def masquerade(record: NetworkRecord) -> bool:
    return flag(record, _ENABLE_MASQUERADE, True) and not internal(record)


def icc(record: NetworkRecord) -> bool:
    """Whether containers of the network reach each other."""
    return flag(record, _ENABLE_ICC, True)


def internal(record: NetworkRecord) -> bool:
    return bool(record.spec.get("internal"))


def has_ipv6(record: NetworkRecord) -> bool:
    return any(":" in str(subnet["subnet"]) for subnet in record.subnets)


def link_name(paths: Paths, record: NetworkRecord) -> str:
    """``wharf0`` for the default network of the default instance, ``wh`` + 12 hex digits of the id otherwise."""
    name = option(record, NAME_OPTION)
    if name:
        return name
    if record.name == DEFAULT_NETWORK and not paths.tag:
        return "wharf0"
    return "wh" + record.id[:12]


def check_options(record: NetworkRecord) -> None:
    """UsageError for driver options that cannot work, Unsupported for those of Docker's that would be ignored (some of
    them open or close ports); before anything exists. Others are anybody's notes."""
    for name, value in (record.spec.get("driver_options") or {}).items():
        if name.startswith("com.docker.network.") and name not in _KNOWN and (name, str(value)) not in _HARMLESS:
            raise Unsupported("driver option %s is not supported" % name, step="create_network", path="driver_options")
    from . import ipam

    name = option(record, NAME_OPTION)
    if name is not None and (not 0 < len(name) <= 15 or "/" in name or name.split() != [name] or name in (".", "..")):
        raise UsageError(
            "%r cannot name a network link (1 to 15 characters, no space or slash)" % name, path=NAME_OPTION
        )
    mtu = option(record, MTU_OPTION)
    if mtu is not None and (not mtu.isdigit() or not 68 <= int(mtu) <= 65535):
        raise UsageError("invalid MTU %r: it must be between 68 and 65535" % mtu, path=MTU_OPTION)
    binding = option(record, HOST_BINDING_OPTION)
    if binding and ipam.to_number(binding, HOST_BINDING_OPTION)[1] != 32:
        raise UsageError("invalid IPv4 address: %s" % binding, path=HOST_BINDING_OPTION)
    prefix = option(record, PREFIX_OPTION)
    if prefix is not None and (
        not 0 < len(prefix) <= 12 or "/" in prefix or prefix.split() != [prefix] or prefix == "lo"
    ):
        raise UsageError("%r cannot begin an interface name" % prefix, path=PREFIX_OPTION)
    masquerade(record)
    icc(record)


def mac(record: NetworkRecord) -> str:
    return "02:42:" + ":".join("%02x" % byte for byte in hashlib.sha256(record.id.encode()).digest()[:4])


def alias(paths: Paths, network_id: str) -> str:
    """Text on the link that says whose it is, to the administrator and to ``orphans``."""
    return "wharf network %s of %s" % (network_id, paths.state)


def orphans(netlink: Netlink, paths: Paths, network_ids: set[str]) -> list[Link]:
    """Bridges of this instance whose networks are gone: a removal was killed between the row and the link."""
    before, after = alias(paths, "|").split("|")
    found = []
    for link in netlink.links():
        text = link.alias
        ours = link.kind == "bridge" and text.startswith(before) and text.endswith(after)
        if ours and text[len(before) : len(text) - len(after)] not in network_ids:
            found.append(link)
    return found


def ensure(netlink: Netlink, paths: Paths, record: NetworkRecord) -> Link:
    """The network's link, complete and up. Every step looks first, so that a start of a container finds nothing to do
    in about 0.2 ms, and what a killed process left half-made is finished."""
    name = link_name(paths, record)
    try:
        return _ensure(netlink, paths, name, record)
    except OSError as error:
        raise KernelError.wrap(
            error,
            "Cannot set up bridge %s of network %s" % (name, record.name),
            step="create_bridge",
            subject="network %s" % record.name,
        ) from error


def _ensure(netlink: Netlink, paths: Paths, name: str, record: NetworkRecord) -> Link:
    link = netlink.link(name) or _create(netlink, name, record)
    if link.kind != "bridge":
        raise Conflict(
            "Link %s exists on the host and is not a bridge (%s)" % (name, link.kind or "no kind"),
            step="create_bridge",
            subject="network %s" % record.name,
        )
    _sysctls(netlink, name, record)
    present = {(a.address, a.prefix) for a in netlink.addresses(link.ifindex)}
    for address in gateways(record):
        if address not in present:
            netlink.add_address(link.ifindex, *address)
    if link.mac == mac(record) and not link.alias:
        netlink.set_link(link.ifindex, up=True, alias=alias(paths, record.id))
    elif not link.up:
        netlink.set_link(link.ifindex, up=True)
    return link


def _create(netlink: Netlink, name: str, record: NetworkRecord) -> Link:
    mtu = int(option(record, MTU_OPTION) or 0) or default_mtu(netlink)
    try:
        netlink.add_link(name, "bridge", mtu=mtu, mac=mac(record))
    except OSError as error:
        if error.errno != 17:  # EEXIST: another process was faster
            raise
    link = netlink.link(name)
    if link is None:
        raise OSError(19, os.strerror(19), name)
    return link


def gateways(record: NetworkRecord) -> list[tuple[str, int]]:
    """``(address, prefix length)`` of the bridge itself."""
    return [(str(s["gateway"]), int(str(s["subnet"]).partition("/")[2])) for s in record.subnets if s["gateway"]]


def default_mtu(netlink: Netlink) -> int:
    """The MTU of the link the IPv4 default route goes through: larger packets would need fragmenting on the way out."""
    routes = [r for r in netlink.routes(2) if not r.prefix and r.ifindex]
    link = netlink.link(min(routes, key=lambda route: route.metric).ifindex) if routes else None
    return link.mtu if link is not None and link.mtu >= 68 else _FALLBACK_MTU


def _wanted_sysctls(name: str, record: NetworkRecord) -> list[tuple[str, str]]:
    """Below /proc/sys/net. ``route_localnet`` lets published ports answer on 127.0.0.1 (the firewall drops 127/8 that
    comes from outside, CVE-2020-8558); no IPv6 address appears on a bridge of a network without IPv6; a container
    must not configure its host by router advertisements (CVE-2020-10749 and its relatives)."""
    conf = "ipv6/conf/%s/" % name
    wanted = [("ipv4/conf/%s/route_localnet" % name, "1"), (conf + "accept_ra", "0")]
    if has_ipv6(record):
        wanted += [(conf + "disable_ipv6", "0"), (conf + "accept_dad", "0")]
    else:
        wanted += [(conf + "disable_ipv6", "1")]
    return wanted


def _sysctls(netlink: Netlink, name: str, record: NetworkRecord) -> None:
    for path, value in _wanted_sysctls(name, record):
        if read_sysctl(path) not in (value, ""):
            write_sysctl(path, value)
    if internal(record):
        return
    if read_sysctl("ipv4/ip_forward") == "0":
        write_sysctl("ipv4/ip_forward", "1")
    if has_ipv6(record) and read_sysctl("ipv6/conf/all/forwarding") == "0":
        _forward_ipv6(netlink)


def _forward_ipv6(netlink: Netlink) -> None:
    """A host that forwards IPv6 forgets routes it learnt from router advertisements, its own default route among them,
    unless the link says accept_ra=2 first (Documentation/networking/ip-sysctl)."""
    for link in netlink.links():
        path = "ipv6/conf/%s/accept_ra" % link.name
        if "/" not in link.name and read_sysctl(path) == "1":
            write_sysctl(path, "2")
    write_sysctl("ipv6/conf/all/forwarding", "1")


def remove(netlink: Netlink, paths: Paths, record: NetworkRecord) -> bool:
    """Delete the bridge if it is ours; returns whether it was there."""
    name = link_name(paths, record)
    try:
        link = netlink.link(name)
        if link is None:
            return False
        if link.mac != mac(record):
            for address, prefix in gateways(record):
                if any(a.address == address for a in netlink.addresses(link.ifindex)):
                    netlink.delete_address(link.ifindex, address, prefix)
            return False
        return netlink.delete_link(link.ifindex)
    except OSError as error:
        raise KernelError.wrap(
            error,
            "Cannot remove bridge %s of network %s" % (name, record.name),
            step="remove_bridge",
            subject="network %s" % record.name,
        ) from error


def observe(netlink: Netlink, paths: Paths, record: NetworkRecord) -> dict[str, Any]:
    """``{present, link, up, mtu, mac, addresses: ["10.0.0.1/24"], drift: [sentences]}`` as the kernel has it."""
    name = link_name(paths, record)
    link = netlink.link(name)
    if link is None:
        drift = ["bridge %s is missing" % name]
        return {"present": False, "link": name, "up": False, "mtu": 0, "mac": "", "addresses": [], "drift": drift}
    addresses = ["%s/%d" % (a.address, a.prefix) for a in netlink.addresses(link.ifindex)]
    drift = [] if link.up else ["bridge %s is down" % name]
    drift += [
        "bridge %s has lost its address %s/%d" % (name, address, prefix)
        for address, prefix in gateways(record)
        if "%s/%d" % (address, prefix) not in addresses
    ]
    wanted = _wanted_sysctls(name, record)
    if not internal(record):
        wanted.append(("ipv4/ip_forward", "1"))
    for path, value in wanted:
        have = read_sysctl(path)
        if have not in (value, ""):
            drift.append("net/%s is %s, not %s" % (path, have, value))
    return {
        "present": True,
        "link": name,
        "up": link.up,
        "mtu": link.mtu,
        "mac": link.mac,
        "addresses": addresses,
        "drift": drift,
    }
