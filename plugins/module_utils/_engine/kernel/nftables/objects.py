# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tables, chains, rules, sets and their elements: as values, into a batch, and back from the kernel.

Rules cannot be compared with what the kernel lists (it adds defaults, and more with each release), so each of ours
carries a digest of its instructions in its user data, beside the comment that ``nft list`` shows.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Optional

from ...tuples import NamedTuple
from ..nfnetlink import (
    F_APPEND,
    F_CREATE,
    F_EXCL,
    SUBSYS_NFTABLES,
    Batch,
    Nfnetlink,
    attr,
    each,
    nest,
    number,
    parse,
    string,
    text,
    u32,
)
from .expressions import value

NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE = (
    SUBSYS_NFTABLES | n for n in range(9)
)
NEWSET, GETSET, DELSET, NEWSETELEM, GETSETELEM, DELSETELEM = (SUBSYS_NFTABLES | n for n in range(9, 15))

# Data types as nft numbers them; the kernel only stores them, nft prints by them.
IPV4, IPV6, INET_PROTOCOL, INET_SERVICE, IFNAME = 7, 8, 12, 13, 41
VERDICT = 0xFFFFFF00
_WIDTH = {IPV4: 4, IPV6: 16, INET_PROTOCOL: 1, INET_SERVICE: 2, IFNAME: 16}
INTERVAL, MAP, CONCAT = 0x4, 0x8, 0x80
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
_COMMENT, _DIGEST = 0, 0x57  # user data items: nft's own comment, and ours (nft skips kinds it does not know)
_CHUNK = 32000  # bytes of elements in one message; the list attribute's length has 16 bits


class Chain(NamedTuple):
    """``hook`` None: a chain that is only jumped to."""

    name: str
    kind: str = ""
    hook: Optional[int] = None
    priority: int = 0
    policy: int = 1


class Rule(NamedTuple):
    chain: str
    expressions: bytes
    comment: str

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.expressions).digest()[:8]


class Listed(NamedTuple):
    """A rule as the kernel lists it; ``comment`` and ``digest`` are empty where whoever made it gave none."""

    handle: int
    comment: str
    digest: bytes


class Set(NamedTuple):
    """A set, or with ``data`` a map. ``key`` and ``data`` are tuples of data types; several make a concatenation."""

    name: str
    key: tuple[int, ...]
    data: tuple[int, ...] = ()
    flags: int = 0

    @property
    def all_flags(self) -> int:
        both = INTERVAL if len(self.key) > 1 else 0
        concat = CONCAT if self.flags & both else 0
        return self.flags | concat | (MAP if self.data else 0)


Elements = Mapping[bytes, bytes]
"""Key to data (b"" in a set). A verdict map's data is made by ``expressions.verdict_data``."""


class Ruleset(NamedTuple):
    """One whole table."""

    family: int
    table: str
    chains: tuple[Chain, ...]
    sets: tuple[Set, ...]
    rules: tuple[Rule, ...]
    elements: Mapping[str, Elements]


class Found(NamedTuple):
    """What the kernel has of a table, in comparable form."""

    flags: int
    chains: frozenset[Chain]
    sets: frozenset[tuple[str, int, int, int, int]]
    rules: tuple[tuple[str, str, bytes], ...]
    elements: dict[str, dict[bytes, bytes]]


def padded(*fields: bytes) -> bytes:
    """A concatenated key or data: each field rounded up to 4 bytes."""
    return b"".join(field + b"\0" * (-len(field) % 4) for field in fields)


def type_number(types: tuple[int, ...]) -> int:
    """nft packs the types of a concatenation into 6 bits each."""
    result = 0
    for kind in types:
        result = result << 6 | kind if kind != VERDICT else VERDICT
    return result


def type_length(types: tuple[int, ...]) -> int:
    if len(types) == 1:
        return _WIDTH.get(types[0], 0)
    return sum((_WIDTH[kind] + 3) & ~3 for kind in types)


# -- changes ----------------------------------------------------------------------------------------------------


def add_table(batch: Batch, family: int, table: str, *, must_be_new: bool = False) -> None:
    flags = F_CREATE | (F_EXCL if must_be_new else 0)
    batch.add(NEWTABLE, family, text(1, table) + u32(2, 0), "add table %s" % table, flags)


def delete_table(batch: Batch, family: int, table: str) -> None:
    batch.add(DELTABLE, family, text(1, table), "delete table %s" % table)


def replace_table(batch: Batch, ruleset: Ruleset) -> None:
    """Whatever table of that name there is, afterwards it is ``ruleset``: added first, so that deleting cannot fail.

    Closing a socket that deleted something waits until the kernel has freed it (5 to 15 ms here), so ``new_table`` is
    for the start of a container.
    """
    add_table(batch, ruleset.family, ruleset.table)
    delete_table(batch, ruleset.family, ruleset.table)
    new_table(batch, ruleset)


def new_table(batch: Batch, ruleset: Ruleset) -> None:
    """EEXIST, and nothing changes, if there is a table of that name."""
    add_table(batch, ruleset.family, ruleset.table, must_be_new=True)
    for chain in ruleset.chains:
        add_chain(batch, ruleset.family, ruleset.table, chain)
    for index, declared in enumerate(ruleset.sets):
        add_set(batch, ruleset.family, ruleset.table, declared, index + 1)
    for rule in ruleset.rules:
        add_rule(batch, ruleset.family, ruleset.table, rule)
    for declared in ruleset.sets:
        add_elements(batch, ruleset.family, ruleset.table, declared, ruleset.elements.get(declared.name, {}))


def add_chain(batch: Batch, family: int, table: str, chain: Chain) -> None:
    body = text(1, table) + text(3, chain.name)
    if chain.hook is not None:
        body += nest(4, u32(1, chain.hook), u32(2, chain.priority)) + u32(5, chain.policy) + text(7, chain.kind)
    batch.add(NEWCHAIN, family, body, "add chain %s" % chain.name, F_CREATE)


def add_rule(batch: Batch, family: int, table: str, rule: Rule) -> None:
    comment = rule.comment.encode() + b"\0"
    user_data = bytes([_COMMENT, len(comment)]) + comment + bytes([_DIGEST, 8]) + rule.digest
    body = text(1, table) + text(2, rule.chain) + nest(4, rule.expressions) + attr(7, user_data)
    batch.add(NEWRULE, family, body, "add rule %r to chain %s" % (rule.comment, rule.chain), F_CREATE | F_APPEND)


def delete_rule(batch: Batch, family: int, table: str, chain: str, handle: int) -> None:
    body = text(1, table) + text(2, chain) + attr(3, handle.to_bytes(8, "big"))
    batch.add(DELRULE, family, body, "delete a rule of chain %s" % chain)


def add_set(batch: Batch, family: int, table: str, declared: Set, number_in_batch: int) -> None:
    body = text(1, table) + text(2, declared.name) + u32(3, declared.all_flags)
    body += u32(4, type_number(declared.key)) + u32(5, type_length(declared.key))
    if declared.data:
        body += u32(6, type_number(declared.data)) + u32(7, type_length(declared.data) or 16)
    if declared.all_flags & CONCAT:
        fields = [nest(1, u32(1, (_WIDTH[kind] + 3) & ~3)) for kind in declared.key]
        body += nest(9, nest(2, *fields))
    if declared.key == (IFNAME,):
        # nft's note to itself "keys are in host byte order": without it nft lists (and saves) names as "".
        body += attr(13, bytes([0, 4]) + struct.pack("=I", 1))
    batch.add(NEWSET, family, body + u32(10, number_in_batch), "add set %s" % declared.name, F_CREATE)


def _element(declared: Set, key: bytes, data: bytes) -> bytes:
    parts = [value(1, key)]
    if data:
        parts.append(attr(2 | 0x8000, data) if declared.data == (VERDICT,) else value(2, data))
    return nest(1, *parts)


def _element_lists(declared: Set, elements: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Element lists of at most about ``_CHUNK`` bytes."""
    chunk: list[bytes] = []
    size = 0
    for key, data in elements:
        chunk.append(_element(declared, key, data))
        size += len(chunk[-1])
        if size > _CHUNK:
            yield nest(3, *chunk)
            chunk, size = [], 0
    if chunk:
        yield nest(3, *chunk)


def add_elements(batch: Batch, family: int, table: str, declared: Set, elements: Elements) -> None:
    """Adding what is there is fine; the same key with other data is EBUSY (EEXIST before Linux 5.7)."""
    for block in _element_lists(declared, elements.items()):
        body = text(1, table) + text(2, declared.name) + block
        batch.add(NEWSETELEM, family, body, "add to set %s" % declared.name, F_CREATE)


def delete_elements(batch: Batch, family: int, table: str, declared: Set, keys: Iterable[bytes]) -> None:
    """ENOENT, and nothing changes, if one is not there. Data are not compared."""
    for block in _element_lists(declared, ((key, b"") for key in keys)):
        body = text(1, table) + text(2, declared.name) + block
        batch.add(DELSETELEM, family, body, "delete from set %s" % declared.name)


# -- reading ----------------------------------------------------------------------------------------------------


def read_table(nl: Nfnetlink, family: int, table: str, sets: Iterable[Set]) -> Optional[Found]:
    """What the kernel has, None without such a table. Elements are read for the sets named in ``sets``."""
    try:
        answers = nl.request(GETTABLE, family, text(1, table), "read table %s" % table)
    except FileNotFoundError:
        return None
    flags = number(parse(answers[0]).get(2, b"")) if answers else 0
    chains = frozenset(_chain(a) for a in _dump(nl, GETCHAIN, family, text(1, table)) if string(a[1]) == table)
    rules = tuple(_rule(a) for a in _dump(nl, GETRULE, family, text(1, table)) if string(a[1]) == table)
    found_sets = frozenset(_set(a) for a in _dump(nl, GETSET, family, text(1, table)) if string(a[1]) == table)
    names = {name for name, *_rest in found_sets}
    elements = {s.name: read_elements(nl, family, table, s) for s in sets if s.name in names}
    return Found(flags, chains, found_sets, rules, elements)


def all_chains(nl: Nfnetlink) -> Iterator[tuple[int, str, Chain]]:
    """Everybody's: ``(family, table, chain)``."""
    for family, data in nl.dump(GETCHAIN, 0, b"", "read all chains"):
        attributes = parse(data)
        yield family, string(attributes.get(1, b"")), _chain(attributes)


def base_chains(nl: Nfnetlink) -> list[tuple[int, str, Chain]]:
    """Those that hang on a hook."""
    return [found for found in all_chains(nl) if found[2].hook is not None]


def read_rules(nl: Nfnetlink, family: int, table: str, chain: str) -> list[Listed]:
    """The rules of one chain in order, whoever made them."""
    rules = []
    for attributes in _dump(nl, GETRULE, family, text(1, table) + text(2, chain)):
        if (string(attributes.get(1, b"")), string(attributes.get(2, b""))) == (table, chain):
            _name, comment, digest = _rule(attributes)
            rules.append(Listed(number(attributes.get(3, b"")), comment, digest))
    return rules


def describe_set(declared: Set) -> tuple[str, int, int, int, int]:
    """The form in which sets are compared: name, flags, key type, data type, key length."""
    key, data = type_number(declared.key), type_number(declared.data)
    return (declared.name, declared.all_flags, key, data, type_length(declared.key))


def describe_rule(rule: Rule) -> tuple[str, str, bytes]:
    return (rule.chain, rule.comment, rule.digest)


def read_elements(nl: Nfnetlink, family: int, table: str, declared: Set) -> dict[bytes, bytes]:
    body = text(1, table) + text(2, declared.name)
    return dict(
        pair
        for attributes in _dump(nl, GETSETELEM, family, body)
        for kind, element in each(attributes.get(3, b""))
        for pair in [_read_element(declared, element)]
    )


def get_element(nl: Nfnetlink, family: int, table: str, declared: Set, key: bytes) -> Optional[bytes]:
    """The data of one element (b"" in a set) without reading the others; None if it is not there."""
    body = text(1, table) + text(2, declared.name) + nest(3, _element(declared, key, b""))
    try:
        answers = nl.request(GETSETELEM, family, body, "read set %s" % declared.name)
    except FileNotFoundError:
        return None
    for answer in answers:
        for _kind, element in each(parse(answer).get(3, b"")):
            return _read_element(declared, element)[1]
    return None


def _dump(nl: Nfnetlink, kind: int, family: int, body: bytes) -> Iterator[dict[int, bytes]]:
    for found, data in nl.dump(kind, family, body, "read the ruleset"):
        if found == family:
            yield parse(data)


def _chain(attributes: dict[int, bytes]) -> Chain:
    name = string(attributes.get(3, b""))
    if 4 not in attributes:
        return Chain(name)
    hook = parse(attributes[4])
    priority = int.from_bytes(hook.get(2, b"\0"), "big", signed=True)
    return Chain(
        name, string(attributes.get(7, b"")), number(hook.get(1, b"")), priority, number(attributes.get(5, b"\1"))
    )


def _rule(attributes: dict[int, bytes]) -> tuple[str, str, bytes]:
    data, comment, digest = attributes.get(7, b""), "", b""
    while len(data) >= 2:
        kind, size = data[0], data[1]
        item, data = data[2 : 2 + size], data[2 + size :]
        if kind == _COMMENT:
            comment = string(item)
        elif kind == _DIGEST:
            digest = item
    return (string(attributes.get(2, b"")), comment, digest)


def _set(attributes: dict[int, bytes]) -> tuple[str, int, int, int, int]:
    name = string(attributes.get(2, b""))
    flags, key, length, data = (number(attributes.get(n, b"")) for n in (3, 4, 5, 6))
    return (name, flags, key, data, length)


def _read_element(declared: Set, element: bytes) -> tuple[bytes, bytes]:
    attributes = parse(element)
    key = parse(attributes.get(1, b"")).get(1, b"")
    data = attributes.get(2, b"")
    if declared.data == (VERDICT,):
        return key, data
    return key, parse(data).get(1, b"")
