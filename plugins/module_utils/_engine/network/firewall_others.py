# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Other programs' chains that forwarded packets must pass as well as ours.

The kernel forwards a packet only if every chain on the hook lets it. dockerd and ufw set the policy of iptables'
FORWARD chain to DROP: what no rule there decided is dropped, traffic of our containers included. That chain is
shared by convention, so ours stand at its end, a few for each bridge::

    -o BRIDGE -j ACCEPT                 what may reach our containers is decided by our own table
    -i BRIDGE -o docker+ -j RETURN      where Docker is: what of ours may reach its containers is decided by its rules,
    -i BRIDGE -o br-+ -j RETURN         and without one of them by the policy
    -i BRIDGE -j ACCEPT

At the end, because there they replace nothing but the policy: a rule that somebody wrote comes first. They go when the
policy accepts, and with the bridge. They are made of instructions that iptables knows and lists.

Chains of administrators' own rulesets are left alone and told (``obstacles``): such rulesets are kept in files, and
written back to them. For firewalld see ``firewalld``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..kernel.nfnetlink import AF_INET, AF_INET6, Batch, Nfnetlink
from ..kernel.nftables import expressions as x
from ..kernel.nftables import objects
from ..tuples import NamedTuple

_FAMILIES = {1: "inet", AF_INET: "ip", AF_INET6: "ip6"}
_TABLE, _CHAIN = "filter", "FORWARD"
_DROPS = 0
_DOCKER = "DOCKER"  # a chain of its in that table
_SENTENCE = ": its own table decides"
_FOREIGN_BRIDGES = (b"docker", b"br-")  # beginnings of the names that dockerd gives


class _Shared(NamedTuple):
    """iptables' FORWARD chain of a family, and what it has of ours."""

    family: int
    drops: bool
    docker: bool
    ours: list[objects.Listed]
    last: bool

    def rules(self, link: str, comment: str) -> list[objects.Rule]:
        """What a bridge needs here."""
        return _rules(link, comment, docker=self.docker) if self.drops else []


def sync(batch: Batch, nl: Nfnetlink, owner: str, links: Iterable[str]) -> None:
    """Exactly what these bridges need, at the end of each shared chain. ``owner``: the name of our table."""
    names = sorted(links)
    for chain in _shared(nl, owner):
        if not _is_right(chain, owner, names):
            _delete(batch, chain, chain.ours)
            for link in names:
                _append(batch, chain, chain.rules(link, _comment(owner)))


def differences(nl: Nfnetlink, owner: str, links: Iterable[str]) -> list[str]:
    """A sentence for each shared chain that is not as ``sync`` makes it."""
    names = sorted(links)
    return [
        "chain %s of table %s %s does not have the rules of our networks" % (_CHAIN, _FAMILIES[chain.family], _TABLE)
        for chain in _shared(nl, owner)
        if not _is_right(chain, owner, names)
    ]


def set_link(batch: Batch, nl: Nfnetlink, owner: str, link: str, *, wanted: bool) -> None:
    """The same for one bridge: all of its rules, or none."""
    comment = _comment(owner)
    known = {rule.digest for rule in _rules(link, comment, docker=True)}
    for chain in _shared(nl, owner):
        have = [rule for rule in chain.ours if rule.digest in known]
        want = chain.rules(link, comment) if wanted else []
        if [rule.digest for rule in have] != [rule.digest for rule in want]:
            _delete(batch, chain, have)
            _append(batch, chain, want)


def obstacles(nl: Nfnetlink, owner: str) -> list[str]:
    """Chains that drop what is forwarded by default, and that we do not change: a sentence each, with what to do."""
    return [
        "Chain %(chain)s of table %(table)s drops forwarded packets by default: containers reach nothing outside, and"
        " published ports do not answer, unless it has the rules 'iifname \"wh*\" accept' and 'oifname \"wh*\" accept'"
        % {"chain": chain.name, "table": "%s %s" % (_FAMILIES[family], table)}
        for family, table, chain in objects.base_chains(nl)
        if chain.hook == objects.FORWARD
        and chain.policy == _DROPS
        and family in _FAMILIES
        and table != owner
        and not _is_shared(family, table, chain)
    ]


def has_firewalld(nl: Nfnetlink) -> bool:
    """Whether its table is in force here."""
    return any((family, table) == (1, "firewalld") for family, table, _chain in objects.base_chains(nl))


# -- inside -------------------------------------------------------------------------------------------------------


def _comment(owner: str) -> str:
    return owner + _SENTENCE


def _is_shared(family: int, table: str, chain: objects.Chain) -> bool:
    return (
        family in (AF_INET, AF_INET6)
        and (table, chain.name) == (_TABLE, _CHAIN)
        and chain.kind == "filter"
        and chain.hook == objects.FORWARD
    )


def _shared(nl: Nfnetlink, owner: str) -> Iterator[_Shared]:
    """Chains that matter: they drop, or have something of ours."""
    chains = list(objects.all_chains(nl))
    comment = _comment(owner)
    for family, table, chain in chains:
        if not _is_shared(family, table, chain):
            continue
        listed = objects.read_rules(nl, family, _TABLE, _CHAIN)
        ours = [rule for rule in listed if rule.comment == comment]
        drops = chain.policy == _DROPS
        if drops or ours:
            docker = any((f, t, c.name) == (family, _TABLE, _DOCKER) for f, t, c in chains)
            behind = listed[listed.index(ours[0]) :] if ours else []
            last = all(rule.comment.endswith(_SENTENCE) for rule in behind)  # other instances' may be among them
            yield _Shared(family, drops, docker, ours, last)


def _is_right(chain: _Shared, owner: str, links: Iterable[str]) -> bool:
    """Networks come and go one by one, so their order says nothing; what belongs to one was added in its order."""
    comment = _comment(owner)
    wanted = [rule.digest for link in links for rule in chain.rules(link, comment)]
    return chain.last and sorted(rule.digest for rule in chain.ours) == sorted(wanted)


def _rules(link: str, comment: str, *, docker: bool) -> list[objects.Rule]:
    name = link.encode() + b"\0"
    into, out = _interface(x.META_OIFNAME, name), _interface(x.META_IIFNAME, name)
    parts = [into + x.counter() + x.verdict(x.ACCEPT)]
    if docker:
        # A name without its end is a beginning: iptables' "docker+".
        parts += [out + _interface(x.META_OIFNAME, b) + x.counter() + x.verdict(x.RETURN) for b in _FOREIGN_BRIDGES]
    parts.append(out + x.counter() + x.verdict(x.ACCEPT))
    return [objects.Rule(_CHAIN, part, comment) for part in parts]


def _interface(key: int, name: bytes) -> bytes:
    return x.meta(key, 1) + x.compare(1, x.EQUAL, name)


def _append(batch: Batch, chain: _Shared, rules: Iterable[objects.Rule]) -> None:
    for rule in rules:
        objects.add_rule(batch, chain.family, _TABLE, rule)


def _delete(batch: Batch, chain: _Shared, rules: Iterable[objects.Listed]) -> None:
    for rule in rules:
        objects.delete_rule(batch, chain.family, _TABLE, _CHAIN, rule.handle)
