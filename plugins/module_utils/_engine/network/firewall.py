# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The firewall as the rest of the engine sees it: networks and published ports, added, removed, and kept true.

One table per family, named after the instance (``paths.nft_table``), that nobody else writes. ``sync`` compares it
with what the store implies and changes only what differs, in one transaction: a deleted rule, a flushed ruleset and a
missing element are all noticed. Transactions name the ruleset generation they were computed from, so two processes
never build on each other's half-read state; which of two *wishes* is newer is for the store's lock to decide.

Wishes are plain: ``Network`` and ``Port`` below, made from store records by the caller.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any, Optional, TypeVar

from ..errors import KernelError, UsageError
from ..kernel.nfnetlink import AF_INET, AF_INET6, Batch, Nfnetlink
from ..kernel.nftables import objects
from ..kernel.nftables.expressions import interface_name
from ..paths import Paths
from ..tuples import NamedTuple
from . import firewall_others as others
from . import firewall_rules as fixed

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_FAMILY_NAMES = {AF_INET: "ip", AF_INET6: "ip6"}
_TRIES = 20
_T = TypeVar("_T")


class Network(NamedTuple):
    """``link``: the bridge. ``members_talk``: containers on it reach each other. ``masquerade``: they leave under the
    host's address (never when ``internal``)."""

    link: str
    internal: bool = False
    masquerade: bool = True
    members_talk: bool = True


class Port(NamedTuple):
    """``host_ip`` "" publishes on every address of the container address's family."""

    host_ip: str
    host_port: int
    protocol: str
    address: str
    container_port: int


class Desired(NamedTuple):
    networks: tuple[Network, ...]
    ports: tuple[Port, ...]


def ports_for(
    host_ip: str, host_port: int, protocol: str, container_port: int, ipv4: Optional[str], ipv6: Optional[str]
) -> list[Port]:
    """The wishes for one published port of a container with these addresses.

    "" publishes for each family the container has, "0.0.0.0" and "::" for one, an address for its own family.
    """
    wanted: list[tuple[str, Optional[str]]]
    if not host_ip:
        wanted = [("", ipv4), ("", ipv6)]
    elif host_ip in ("0.0.0.0", "::"):
        wanted = [("", ipv6 if ":" in host_ip else ipv4)]
    else:
        wanted = [(host_ip, ipv6 if ":" in host_ip else ipv4)]
    return [Port(ip, host_port, protocol, address, container_port) for ip, address in wanted if address]


class _Element(NamedTuple):
    family: int
    map: objects.Set
    key: bytes
    data: bytes


def _address(text: str) -> tuple[int, bytes]:
    family = AF_INET6 if ":" in text else AF_INET
    try:
        return family, socket.inet_pton(family, text)
    except OSError:
        raise UsageError("%r is not an IP address" % text, step="firewall", path="published_ports") from None


def _port_element(port: Port) -> _Element:
    family, address = _address(port.address)
    protocol = PROTOCOLS.get(port.protocol)
    if protocol is None:
        raise UsageError(
            "Protocol %r of published port %d is not one of %s" % (port.protocol, port.host_port, ", ".join(PROTOCOLS)),
            step="firewall",
            path="published_ports",
        )
    key = (bytes([protocol]), port.host_port.to_bytes(2, "big"))
    data = objects.padded(address, port.container_port.to_bytes(2, "big"))
    if not port.host_ip or port.host_ip in ("0.0.0.0", "::"):
        return _Element(family, fixed.ports_map(family), objects.padded(*key), data)
    host_family, host = _address(port.host_ip)
    if host_family != family:
        raise UsageError(
            "Cannot publish %s on %s: the addresses are of different families" % (port.address, port.host_ip),
            step="firewall",
            path="published_ports",
        )
    return _Element(family, fixed.addressed_map(family), objects.padded(host, *key), data)


def _network_elements(network: Network) -> list[tuple[objects.Set, bytes]]:
    name = interface_name(network.link)
    elements = [(fixed.LINKS, name)]
    if network.members_talk:
        elements.append((fixed.SAME, name + name))
    if network.internal:
        elements.append((fixed.INTERNAL, name))
    elif network.masquerade:
        elements.append((fixed.MASKED, name))
    return elements


class _Changes:
    """Published ports that a transaction takes away and brings, for ``firewall_flows``."""

    __slots__ = ("come", "gone")

    def __init__(self) -> None:
        self.gone: list[_Element] = []
        self.come: list[_Element] = []

    def clear(self) -> None:
        self.gone, self.come = [], []

    def compare(self, ruleset: objects.Ruleset, found: Optional[objects.Found]) -> None:
        """A whole table; without it, for all we know, every flow was decided wrongly."""
        for declared in (fixed.ports_map(ruleset.family), fixed.addressed_map(ruleset.family)):
            wanted = ruleset.elements[declared.name]
            current = found.elements.get(declared.name, {}) if found is not None else {}
            for key, data in current.items():
                if wanted.get(key) != data:
                    self.gone.append(_Element(ruleset.family, declared, key, data))
            for key, data in wanted.items():
                if current.get(key) != data:
                    self.come.append(_Element(ruleset.family, declared, key, data))


class Firewall:
    """``netns_fd``: work on that network namespace instead of the current one."""

    def __init__(self, paths: Paths, *, netns_fd: Optional[int] = None) -> None:
        self.table = paths.nft_table
        self._netns_fd = netns_fd
        self._nl: Optional[Nfnetlink] = None

    @property
    def families(self) -> tuple[int, ...]:
        """IPv6 unless the kernel was booted without it."""
        return (AF_INET, AF_INET6) if os.path.exists("/proc/net/if_inet6") else (AF_INET,)

    def close(self) -> None:
        if self._nl is not None:
            self._nl.close()
            self._nl = None

    # -- whole state -------------------------------------------------------------------------------------------

    @staticmethod
    def desired(networks: Iterable[Network], ports: Iterable[Port]) -> Desired:
        return Desired(tuple(networks), tuple(ports))

    def sync(self, desired: Desired) -> bool:
        """Make the kernel's tables what ``desired`` says. True if anything had to change."""
        rulesets = [self._ruleset(family, desired) for family in self.families]
        changes = _Changes()

        def plan(batch: Batch, nl: Nfnetlink) -> bool:
            changes.clear()
            for ruleset in rulesets:
                found = objects.read_table(nl, ruleset.family, ruleset.table, ruleset.sets)
                whole = found is not None and _same_frame(ruleset, found)
                changes.compare(ruleset, found if whole else None)
                if found is None:
                    objects.new_table(batch, ruleset)
                elif whole:
                    _repair_elements(batch, ruleset, found)
                else:
                    objects.replace_table(batch, ruleset)
            others.sync(batch, nl, self.table, links)
            return len(batch) > 0

        links = [network.link for network in desired.networks]
        changed = self._transact(plan, changes)
        zones = self._zones()
        return bool(zones and zones.bind(links)) or changed

    def remove(self) -> bool:
        """Take the tables away. True if there were any."""

        def plan(batch: Batch, nl: Nfnetlink) -> bool:
            for family in self.families:
                if objects.read_table(nl, family, self.table, ()) is not None:
                    objects.delete_table(batch, family, self.table)
            others.sync(batch, nl, self.table, ())
            return len(batch) > 0

        return self._transact(plan)

    def differences(self, desired: Desired) -> list[str]:
        """One sentence for each way in which the kernel differs from ``desired``; changes nothing."""
        sentences = []
        for family in self.families:
            ruleset = self._ruleset(family, desired)
            found = self._guard(lambda nl, r=ruleset: objects.read_table(nl, r.family, r.table, r.sets))  # type: ignore[misc]
            name = "%s %s" % (_FAMILY_NAMES[family], self.table)
            if found is None:
                sentences.append("firewall table %s is missing" % name)
            elif not _same_frame(ruleset, found):
                sentences.append("firewall table %s was changed by somebody" % name)
            else:
                batch = Batch()
                _repair_elements(batch, ruleset, found)
                sentences.extend("firewall table %s: must %s" % (name, message.what) for message in batch.messages)
        links = [network.link for network in desired.networks]
        sentences += self._guard(lambda nl: others.differences(nl, self.table, links))
        zones = self._zones()
        return sentences + ["bridge %s is in no zone of firewalld" % x for x in (zones.unbound(links) if zones else ())]

    def obstacles(self) -> list[str]:
        """What of other programs' rules keeps containers' packets from passing, and is theirs to change."""
        sentences = self._guard(lambda nl: others.obstacles(nl, self.table))
        zones = self._zones()
        if zones and not zones.answers():
            sentences.append("firewalld's rules are in force, but it does not answer: start it, or flush them")
        return sentences

    def observe(self) -> dict[str, Any]:
        """``{"present": all tables are there and whole, "networks": [Network...], "ports": [Port...]}``."""
        present, ports = True, []
        networks: list[Network] = []
        for family in self.families:
            declared = fixed.sets(family)
            found = self._guard(lambda nl, f=family, d=declared: objects.read_table(nl, f, self.table, d))  # type: ignore[misc]
            if found is None or not _same_frame(self._ruleset(family, Desired((), ())), found):
                present = False
            if found is not None:
                ports.extend(_read_ports(family, found))
                networks = networks or _read_networks(found)
        links = [network.link for network in networks]
        present = present and not self._guard(lambda nl: others.differences(nl, self.table, links))
        zones = self._zones()
        present = present and not (zones and zones.unbound(links))
        return {"present": present, "networks": networks, "ports": ports}

    # -- single changes ----------------------------------------------------------------------------------------

    def add_ports(self, ports: Iterable[Port], rebuild: Optional[Callable[[], Desired]] = None) -> bool:
        """Publish. One element each, all in one transaction. A stale target of the same port is replaced: who may
        have a port is the store's decision. True if anything changed.

        Somebody may have flushed the table: then ``sync(rebuild())`` if given, else ``KernelError``.
        """
        return self.switch((), ports, rebuild)

    def remove_ports(self, ports: Iterable[Port]) -> bool:
        """Withdraw. An element that points to another container by now stays."""
        return self.switch(ports, ())

    def switch(self, old: Iterable[Port], new: Iterable[Port], rebuild: Optional[Callable[[], Desired]] = None) -> bool:
        """Repoint published ports from one container to another in one transaction: no packet finds them closed."""
        gone = [_port_element(port) for port in old]
        wanted = [_port_element(port) for port in new]
        wanted_keys = {(e.family, e.map.name, e.key) for e in wanted}
        changes = _Changes()

        def plan(batch: Batch, nl: Nfnetlink) -> bool:
            changes.clear()
            for element in gone:
                if (element.family, element.map.name, element.key) in wanted_keys:
                    continue
                if self._current(nl, element) == element.data:
                    self._delete(batch, element)
                    changes.gone.append(element)
            for element in wanted:
                current = self._current(nl, element)
                if current == element.data:
                    continue
                if current is not None:
                    self._delete(batch, element)
                    changes.gone.append(element._replace(data=current))
                objects.add_elements(batch, element.family, self.table, element.map, {element.key: element.data})
                changes.come.append(element)
            return len(batch) > 0

        return self._or_rebuild(plan, rebuild, changes)

    def add_network(self, network: Network, rebuild: Optional[Callable[[], Desired]] = None) -> bool:
        return self._set_network(network.link, _network_elements(network), rebuild)

    def remove_network(self, link: str) -> bool:
        """Forget a bridge. Fine if it, or the whole table, is not there."""
        try:
            return self._set_network(link, [], None)
        except KernelError as error:
            if error.errno == errno.ENOENT:
                return False
            raise

    def _set_network(
        self,
        link: str,
        elements: list[tuple[objects.Set, bytes]],
        rebuild: Optional[Callable[[], Desired]],
    ) -> bool:
        """Exactly these of the interface sets contain the bridge."""
        name = interface_name(link)

        def plan(batch: Batch, nl: Nfnetlink) -> bool:
            for family in self.families:
                for declared in fixed.INTERFACE_SETS:
                    key = name + name if declared is fixed.SAME else name
                    there = objects.get_element(nl, family, self.table, declared, key) is not None
                    wanted = (declared, key) in elements
                    if wanted and not there:
                        objects.add_elements(batch, family, self.table, declared, {key: b""})
                    elif there and not wanted:
                        objects.delete_elements(batch, family, self.table, declared, [key])
            others.set_link(batch, nl, self.table, link, wanted=bool(elements))
            return len(batch) > 0

        changed = self._or_rebuild(plan, rebuild)
        zones = self._zones()
        return bool(zones and (zones.bind([link]) if elements else zones.unbind(link))) or changed

    # -- inside ------------------------------------------------------------------------------------------------

    def _zones(self) -> Any:
        """``firewalld`` where that is in force, else None. It knows of this host's own network namespace only."""
        if self._netns_fd is not None or not self._guard(others.has_firewalld):
            return None
        from . import firewalld

        return firewalld

    def _current(self, nl: Nfnetlink, element: _Element) -> Optional[bytes]:
        return objects.get_element(nl, element.family, self.table, element.map, element.key)

    def _delete(self, batch: Batch, element: _Element) -> None:
        objects.delete_elements(batch, element.family, self.table, element.map, [element.key])

    def _ruleset(self, family: int, desired: Desired) -> objects.Ruleset:
        elements: dict[str, dict[bytes, bytes]] = {declared.name: {} for declared in fixed.sets(family)}
        for network in desired.networks:
            for declared, key in _network_elements(network):
                elements[declared.name][key] = b""
        for port in desired.ports:
            element = _port_element(port)
            if element.family == family:
                elements[element.map.name][element.key] = element.data
        return objects.Ruleset(family, self.table, fixed.CHAINS, fixed.sets(family), fixed.rules(family), elements)

    def _or_rebuild(
        self,
        plan: Callable[[Batch, Nfnetlink], bool],
        rebuild: Optional[Callable[[], Desired]],
        changes: Optional[_Changes] = None,
    ) -> bool:
        try:
            return self._transact(plan, changes)
        except KernelError as error:
            if error.errno != errno.ENOENT or rebuild is None:
                raise
        return self.sync(rebuild())

    def _transact(self, plan: Callable[[Batch, Nfnetlink], bool], changes: Optional[_Changes] = None) -> bool:
        """Plan on one generation of the ruleset and commit on the same one, again if somebody came between."""

        def once(nl: Nfnetlink) -> Optional[bool]:
            generation = nl.generation()
            batch = Batch()
            if not plan(batch, nl):
                return False
            try:
                nl.commit(batch, generation)
            except OSError as error:
                if error.errno == errno.ERESTART:
                    return None
                raise
            if changes is not None:
                self._settle(nl, changes)
            return True

        for _try in range(_TRIES):
            changed = self._guard(once)
            if changed is not None:
                return changed
        raise KernelError(
            "Cannot change firewall table %s: other programs keep changing the firewall" % self.table, step="firewall"
        )

    def _settle(self, nl: Nfnetlink, changes: _Changes) -> None:
        gone = [_read_port(e.family, e.map.name, e.key, e.data) for e in changes.gone]
        come = [_read_port(e.family, e.map.name, e.key, e.data) for e in changes.come]
        if any(port.protocol == "udp" for port in gone + come):
            from . import firewall_flows as flows

            flows.settle(
                nl,
                [flows.Gone(_family(p.address), p.address, p.container_port) for p in gone if p.protocol == "udp"],
                {
                    flows.Come(_family(p.address), p.host_ip, p.host_port): (p.address, p.container_port)
                    for p in come
                    if p.protocol == "udp"
                },
                self._netns_fd,
            )

    def _socket(self) -> Nfnetlink:
        if self._nl is None:
            self._nl = Nfnetlink() if self._netns_fd is None else Nfnetlink.at(self._netns_fd)
        return self._nl

    def _guard(self, action: Callable[[Nfnetlink], _T]) -> _T:
        try:
            return action(self._socket())
        except OSError as error:
            self.close()
            hint = None
            if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                hint = "The kernel needs nf_tables with NAT (modules nf_tables, nft_chain_nat, nft_masq, nft_fib)."
            sentence = "Cannot use firewall table %s (%s)" % (self.table, error.filename or "netlink")
            raise KernelError.wrap(error, sentence, step="firewall", subject=self.table, hint=hint) from error


def _same_frame(ruleset: objects.Ruleset, found: objects.Found) -> bool:
    """Chains, sets and rules are ours and in order (elements aside), and the table is not dormant."""
    return (
        found.flags == 0
        and found.chains == frozenset(ruleset.chains)
        and found.sets == frozenset(objects.describe_set(declared) for declared in ruleset.sets)
        and _by_chain(found.rules) == _by_chain(tuple(objects.describe_rule(rule) for rule in ruleset.rules))
    )


def _by_chain(rules: tuple[tuple[str, str, bytes], ...]) -> dict[str, list[tuple[str, bytes]]]:
    chains: dict[str, list[tuple[str, bytes]]] = {}
    for chain, comment, digest in rules:
        chains.setdefault(chain, []).append((comment, digest))
    return chains


def _repair_elements(batch: Batch, ruleset: objects.Ruleset, found: objects.Found) -> None:
    for declared in ruleset.sets:
        wanted = ruleset.elements[declared.name]
        current = found.elements.get(declared.name, {})
        stale = [key for key, data in current.items() if wanted.get(key) != data]
        missing = {key: data for key, data in wanted.items() if current.get(key) != data}
        if stale:
            objects.delete_elements(batch, ruleset.family, ruleset.table, declared, stale)
        if missing:
            objects.add_elements(batch, ruleset.family, ruleset.table, declared, missing)


def _read_networks(found: objects.Found) -> list[Network]:
    def names(declared: objects.Set) -> set[str]:
        return {key[:16].rstrip(b"\0").decode(errors="replace") for key in found.elements.get(declared.name, {})}

    same, internal, masked = names(fixed.SAME), names(fixed.INTERNAL), names(fixed.MASKED)
    return [
        Network(link, link in internal, link in masked or link in internal, link in same)
        for link in sorted(names(fixed.LINKS))
    ]


def _read_ports(family: int, found: objects.Found) -> list[Port]:
    return sorted(
        _read_port(family, name, key, data)
        for name in ("ports", "addressed")
        for key, data in found.elements.get(name, {}).items()
    )


def _read_port(family: int, name: str, key: bytes, data: bytes) -> Port:
    width = 4 if family == AF_INET else 16
    host_ip, key = ("", key) if name == "ports" else (socket.inet_ntop(family, key[:width]), key[width:])
    protocol = next((text for text, number in PROTOCOLS.items() if number == key[0]), str(key[0]))
    address, port = socket.inet_ntop(family, data[:width]), int.from_bytes(data[width : width + 2], "big")
    return Port(host_ip, int.from_bytes(key[4:6], "big"), protocol, address, port)


def _family(address: str) -> int:
    return AF_INET6 if ":" in address else AF_INET
