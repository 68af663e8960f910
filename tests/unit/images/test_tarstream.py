# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar reader: every format comes out right, every defect is refused, nothing hangs or escapes."""

from __future__ import annotations

import io
import os
import stat
import tarfile

import pytest
from helpers import tars
from helpers.tars import build, char, file, folder, header, link, long_name, padded, pax, symlink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from module_utils._engine.errors import IntegrityError
from module_utils._engine.images.tarstream import HARD_LINK, MAX_TIME, MIN_TIME, Sink, TarStream
from module_utils._engine.images.tree import LayerTree


class Collector(Sink):
    def __init__(self):
        self.entries = []
        self.contents = {}
        self.current = b""

    def entry(self, entry):
        self.entries.append(entry)
        self.current = entry.name
        if entry.kind == stat.S_IFREG:
            self.contents[entry.name] = b""
        return entry.kind == stat.S_IFREG

    def data(self, piece):
        self.contents[self.current] += bytes(piece)

    def end(self):
        self.current = b""


def read(data, piece=4096, **limits):
    sink = Collector()
    stream = TarStream(sink, **limits)
    for at in range(0, len(data), piece):
        stream.write(data[at : at + piece])
    stream.close()
    assert stream.offset == len(data)
    return sink


def one(data, **limits):
    return read(data, **limits).entries[-1]


@pytest.mark.parametrize("piece", [1, 100, 511, 512, 513, 1 << 20])
def test_entries_and_data_do_not_depend_on_the_pieces(piece):
    data = build([folder("d"), file("d/f", b"x" * 700), symlink("s", "d"), file("e"), file("p" * 150, b"y" * 512)])
    sink = read(data, piece)
    assert [e.name for e in sink.entries] == [b"d/", b"d/f", b"s", b"e", b"p" * 150]
    assert sink.contents == {b"d/f": b"x" * 700, b"e": b"", b"p" * 150: b"y" * 512}
    assert [e.offset for e in sink.entries] == [512, 1024, 2560, 3072, 3584 + 1024]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes_is_read_back(form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for n, kind in enumerate((tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
                                  tarfile.BLKTYPE, tarfile.FIFOTYPE)):  # fmt: skip
            info = tarfile.TarInfo("dir/" + "n" * 90 + str(n))
            info.type, info.mode, info.uid, info.gid, info.mtime = kind, 0o4751, 10 + n, 20 + n, 1000 + n
            info.linkname = "target" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.devmajor, info.devminor = (259, 300) if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE) else (0, 0)
            info.size = 5 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"hello"))
    sink = read(out.getvalue())
    kinds = [stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, HARD_LINK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO]
    assert [e.kind for e in sink.entries] == kinds
    for n, entry in enumerate(sink.entries):
        assert entry.name.rstrip(b"/") == b"dir/" + b"n" * 90 + str(n).encode()
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (0o4751, 10 + n, 20 + n, 1000 + n)
        assert entry.link == (b"target" if entry.kind in (stat.S_IFLNK, HARD_LINK) else b"")
    assert sink.entries[4].rdev == os.makedev(259, 300) & 0xFFFFFFFF


def test_numbers_of_any_encoding():
    huge = 9 << 30
    stream = TarStream(Collector())
    stream.write(header("f", size=huge))
    assert stream._sink.entries[0].size == huge
    stream = TarStream(Collector())
    stream.write(pax({"size": str(huge)}) + header("f"))
    assert stream._sink.entries[0].size == huge
    assert one(build([file("f", uid=3_000_000_000, gid=2_097_152)]))[4:6] == (3_000_000_000, 2_097_152)
    assert one(build([header("f", mtime=-5)])).mtime == -5
    assert one(build([header("f", mtime=1 << 40)])).mtime == MAX_TIME
    assert one(build([header("f", mtime=-(1 << 40))])).mtime == MIN_TIME


@pytest.mark.parametrize(
    ("text", "seconds", "nsec"),
    [("1.5", 1, 500_000_000), ("-1.5", -2, 500_000_000), ("-0.25", -1, 750_000_000), ("7", 7, 0), ("-7", -7, 0),
     ("3.1234567891", 3, 123_456_789), ("5.", 5, 0)],
)  # fmt: skip
def test_times_keep_their_fractions(text, seconds, nsec):
    entry = one(build([pax({"mtime": text}) + header("f")]))
    assert (entry.mtime, entry.nsec) == (seconds, nsec)


def test_xattrs_are_bytes():
    records = {
        "SCHILY.xattr.user.a=b": b"",
        "SCHILY.xattr.user.bin": b"\0\n=\xff",
        "LIBARCHIVE.xattr.user.l%20x": b"AAH/",
        "LIBARCHIVE.xattr.user.bin": b"AA",
    }
    # A key cannot hold "=": everything behind the first one is value.
    entry = one(build([pax(records) + header("f")]))
    assert entry.xattrs == {b"user.a": b"b=", b"user.bin": b"\0\n=\xff", b"user.l x": b"\0\x01\xff"}


def test_extension_headers_rule_one_entry_only():
    data = build([pax({"path": "long", "uid": "7", "linkpath": "t"}) + header("short", b"2", link="x"), file("plain")])
    first, second = read(data).entries
    assert (first.name, first.uid, first.link) == (b"long", 7, b"t") and (second.name, second.uid) == (b"plain", 0)


def test_a_gnu_name_wins_over_a_pax_path_and_empty_records_mean_nothing():
    data = build([pax({"path": "pax", "uid": ""}) + long_name("gnu") + header("h", uid=3)])
    assert (one(data).name, one(data).uid) == (b"gnu", 3)


def test_global_headers_are_ignored():
    assert one(build([pax({"path": "evil", "size": "99999"}, b"g") + file("f", b"1")])).name == b"f"


def test_prefixes_of_ustar_and_star():
    assert one(build([header("name", prefix="some/dir")])).name == b"some/dir/name"
    assert one(build([header("name", prefix="ignored", magic=b"ustar  \0")])).name == b"name"


def test_old_archives():
    assert one(build([header("d/", b"\0", magic=b"\0" * 8)])).kind == stat.S_IFDIR
    assert one(build([header("f", b"\0", magic=b"\0" * 8)])).kind == stat.S_IFREG
    assert one(build([header("f", b"7", 3) + padded(b"abc")])).kind == stat.S_IFREG


def test_header_only_types_have_no_data_whatever_they_say():
    data = build([header("l", b"1", 5000, link="x"), header("s", b"2", 77, link="x"), header("d", b"5", 9), file("f")])
    assert [(e.name, e.size) for e in read(data).entries] == [(b"l", 0), (b"s", 0), (b"d", 0), (b"f", 0)]


def test_ends_of_archives():
    whole = [file("f", b"1")]
    for data in (build(whole), build(whole, end=False), build(whole, end=False) + bytes(512), build([]), b""):
        assert len(read(data).entries) == (1 if data.strip(b"\0") else 0)
    assert len(read(build(whole) + b"garbage of any length, never looked at" * 99).entries) == 1
    assert len(read(build(whole, end=False)[:-511]).entries) == 1  # padding may be missing


BAD = {
    "cut in a header": build([file("f")], end=False)[:300],
    "cut in data": build([file("f", b"x" * 600)], end=False)[:-512],
    "cut in PAX data": pax({"path": "x" * 600})[:600],
    "checksum": build([header("f")[:100] + b"9" + header("f")[101:]]),
    "checksum field": header("f")[:148] + b"zzzzzzzz" + header("f")[156:],
    "no tar at all": b"\x7fELF" + bytes(508) + b"x" * 512,
    "zero block inside": bytes(512) + file("f"),
    "unknown type": header("f", b"Z"),
    "multi-volume": header("f", b"M"),
    "negative size": header("f", size=-1),
    "negative PAX size": pax({"size": "-1"}) + header("f"),
    "PAX size with underscore": pax({"size": "1_0"}) + header("f"),
    "size over the limit": header("f", size=1 << 62),
    "negative owner": header("f", uid=-2),
    "owner -1": header("f", uid=0xFFFFFFFF),
    "octal digits": header("f")[:100] + b"9999999\0" + header("f")[108:],
    "device numbers": char("c", 1 << 13, 0),
    "NUL in PAX path": pax({"path": b"a\0b"}) + header("f"),
    "NUL in PAX link": pax({"linkpath": b"a\0b"}) + header("f", b"2"),
    "PAX without length": header("x", b"x", 9) + padded(b"path=abc\n"),
    "PAX length too long": header("x", b"x", 12) + padded(b"99 path=abc\n"),
    "PAX length too short": header("x", b"x", 12) + padded(b"03 path=abc\n"),
    "PAX length zero": header("x", b"x", 12) + padded(b"0 path=abcd\n"),
    "PAX without newline": header("x", b"x", 12) + padded(b"12 path=abcd"),
    "PAX without equals": header("x", b"x", 8) + padded(b"8 pathx\n"),
    "PAX time": pax({"mtime": "now"}) + header("f"),
    "huge PAX header": header("x", b"x", 1 << 30),
    "huge long name": header("x", b"L", 1 << 21),
    "base64": pax({"LIBARCHIVE.xattr.user.x": "!!"}) + header("f"),
    "sparse map out of order": pax({"GNU.sparse.size": "9", "GNU.sparse.map": "5,1,0,1"}) + file("f", b"ab"),
    "sparse map past the end": pax({"GNU.sparse.size": "9", "GNU.sparse.map": "5,9"}) + file("f", b"a" * 9),
    "sparse map odd": pax({"GNU.sparse.size": "9", "GNU.sparse.map": "5"}) + file("f", b"a"),
    "sparse map larger than data": pax({"GNU.sparse.size": "99", "GNU.sparse.map": "5,50"}) + file("f", b"a"),
    "sparse without a size": pax({"GNU.sparse.map": "5,1"}) + file("f", b"a"),
    "sparse 1.0 without a map": pax({"GNU.sparse.major": "1", "GNU.sparse.realsize": "9"}) + file("f"),
    "sparse 1.0 broken map": pax({"GNU.sparse.major": "1", "GNU.sparse.realsize": "9"}) + file("f", b"x" * 600),
    "sparse 1.0 too many": pax({"GNU.sparse.major": "1", "GNU.sparse.realsize": "9"})
    + file("f", padded(b"999999999\n")),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_defects_are_refused(name):
    with pytest.raises(IntegrityError, match="Layer refused"):
        read(BAD[name])


def test_limits():
    with pytest.raises(IntegrityError, match="more than 3 entries"):
        read(build([file(str(n)) for n in range(4)]), max_entries=3)
    with pytest.raises(IntegrityError, match="101 bytes"):
        read(build([file("f", b"x" * 101)]), max_size=100)


# -- the tree's judgement ----------------------------------------------------------------------------------------

HOSTILE = {
    "up": [file("../x")],
    "up inside": [file("a/../../x")],
    "up within": [file("a/../x")],
    "up at the end": [folder("a/..")],
    "only up": [folder("..")],
    "absolute up": [file("/../x")],
    "long component": [file("x" * 256)],
    "long component above": [file("x" * 256 + "/y")],
    "long path": [file("x/" * 2048 + "y")],
    "deep": [file("x/" * 1500 + "y")],
    "below a file": [file("f"), file("f/x")],
    "below a device": [char("c", 1, 3), file("c/x")],
    "symlink loop": [symlink("a", "b"), symlink("b", "a"), file("a/x")],
    "symlink to itself": [symlink("a", "a/a"), file("a/x")],
    "symlink through a file": [file("f"), symlink("s", "f/g"), file("s/x")],
    "empty symlink": [symlink("s", "")],
    "long symlink": [symlink("s", "x" * 4096)],
    "link up": [file("a"), link("l", "../a")],
    "link up inside": [file("a"), link("l", "x/../../a")],
    "link to a directory": [folder("d"), link("l", "d")],
    "link to the root": [link("l", "/")],
    "whiteout of nothing": [file(".wh.")],
    "whiteout of here": [file("d/.wh..")],
    "whiteout of above": [file("d/.wh...")],
    "below a whiteout": [file(".wh.d/x")],
    "attribute name": [file("f", xattrs={"user." + "x" * 300: b""})],
    "attribute size": [file("f", xattrs={"user.x": b"x" * 70_000})],
    "attributes": [file("f", xattrs={"user.x%d" % n: b"x" * 60_000 for n in range(5)})],
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_names_and_links_are_refused(name):
    tree = LayerTree()
    stream = TarStream(tree)
    with pytest.raises(IntegrityError, match="Layer refused"):
        stream.write(build(HOSTILE[name]))


def paths(tree):
    return {
        (tree.path(d) + b"/" + name).lstrip(b"/"): kid
        for d in tree.walk() if d in tree.kids for name, kid in tree.kids[d].items()
    }  # fmt: skip


def grow(*entries):
    tree = LayerTree()
    TarStream(tree).write(build(list(entries)))
    tree.finish()
    return tree


def test_symlink_targets_may_climb_but_stay_inside():
    tree = grow(symlink("s", "../../../up"), file("s/x"), symlink("abs", "/"), file("abs/y"), symlink("d", "e/../f"),
                file("d/z"))  # fmt: skip
    assert {b"up/x", b"y", b"f/z", b"e"} <= set(paths(tree))


def test_names_of_one_entry_meet():
    tree = grow(file("a/b"), file("./a//c"), file("/a/./d"), folder("a/"), file("a/e/"))
    assert set(paths(tree)) == {b"a", b"a/b", b"a/c", b"a/d", b"a/e"}


def test_a_million_entries_cost_little_memory_each():
    import tracemalloc

    stream = TarStream(LayerTree())
    tracemalloc.start()
    base = header("d/00000000", b"0")
    count = 20_000
    for n in range(count):
        raw = base[:2] + b"%08d" % n + base[10:148] + b" " * 8 + base[156:]
        stream.write(raw[:148] + b"%06o\0 " % sum(raw) + raw[156:])
    used, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / count < 300


# -- fuzzing -----------------------------------------------------------------------------------------------------

SEED = tars.sampler()


@settings(max_examples=400, deadline=2000, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=8),
    st.booleans(),
    st.integers(1, 2000),
)
def test_mutated_archives_are_read_or_refused(changes, repair, piece):
    data = bytearray(SEED)
    for at, text in changes:
        data[at : at + len(text)] = text
    data = tars.repaired(bytes(data)) if repair else bytes(data)
    tree = LayerTree()
    stream = TarStream(tree)
    try:
        for at in range(0, len(data), piece):
            stream.write(data[at : at + piece])
        stream.close()
        tree.finish()
    except IntegrityError:
        return
    for path in paths(tree):
        assert b".." not in path.split(b"/") and b"\0" not in path and not path.startswith(b"/")


PLAIN = build(
    [folder("d"), file("d/f", b"x" * 600), symlink("s", "d"), link("l", "d/f"), file("e", prefix="a/b"), file("g")]
)


def told(data, piece, **limits):
    """Everything a reader tells of an archive that comes in such pieces, or the sentence it refuses it with."""
    sink = Collector()
    stream = TarStream(sink, **limits)
    try:
        for at in range(0, len(data), piece):
            stream.write(data[at : at + piece])
        stream.close()
    except IntegrityError as error:
        return sink.entries, error.msg
    return sink.entries, sink.contents, stream.entries, stream.newest, stream.offset


@settings(max_examples=600, deadline=2000, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([SEED, PLAIN]),
    st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.binary(min_size=1, max_size=12)), max_size=8),
    st.booleans(),
    st.sampled_from([10**9, 3]),
)
def test_the_fast_reader_and_the_thorough_one_tell_the_same(seed, changes, repair, entries):
    """Headers that come in pieces are read by the thorough one."""
    data = bytearray(seed)
    for at, text in changes:
        at %= len(seed)
        data[at : at + len(text)] = text
    data = tars.repaired(bytes(data)) if repair else bytes(data)
    thorough = told(data, 500, max_entries=entries, max_size=1 << 30)
    assert told(data, len(data), max_entries=entries, max_size=1 << 30) == thorough
    assert told(data, 1500, max_entries=entries, max_size=1 << 30) == thorough


@settings(max_examples=150, deadline=2000)
@given(st.binary(max_size=3000))
def test_noise_is_refused(data):
    try:
        read(data, 700)
    except IntegrityError:
        return
    assert not data.strip(b"\0") or data[:1024] == bytes(1024) or len(data) < 512 or data[:512] == bytes(512)
