# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Both layer forms, mounted, show one and the same tree; and it is the tree the archive describes."""

from __future__ import annotations

import os
import stat
import struct

import pytest
from helpers import tars
from helpers.tars import block, build, char, fifo, file, folder, link, opaque, snapshot, symlink, whiteout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from module_utils._engine.errors import IntegrityError
from module_utils._engine.images.layers import LayerWriter, best_form
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.storage import overlay

pytestmark = pytest.mark.root
FORMS = ["erofs", "tree"]
KERNEL = Kernel()


@pytest.fixture(autouse=True)
def erofs_available(tmp_path):
    if not overlay.erofs_files(KERNEL, str(tmp_path)):
        pytest.skip("no file-backed EROFS here")


def write(base, form, data, parents=(), piece=4096):
    base.mkdir(parents=True, exist_ok=True)
    directory = base / ("layer%d" % len(list(base.iterdir())))
    directory.mkdir()
    with LayerWriter(str(directory), form=form, parents=parents) as writer:
        for at in range(0, len(data), piece):
            writer.write(data[at : at + piece])
        result = writer.finish()
    return (str(directory), result.form), result


def seen(layers, **options):
    fd = overlay.mount_rootfs(KERNEL, layers)
    try:
        return snapshot(fd, **options)
    finally:
        os.close(fd)


def raw(layer):
    """The layer itself, whiteouts visible."""
    fd = overlay.open_layer(KERNEL, *layer)
    try:
        return snapshot(fd)
    finally:
        os.close(fd)


def both(tmp_path, *archives, **options):
    """What a stack of archives shows, after checking that the forms agree on it."""
    shown = {}
    for form in FORMS:
        layers = []
        for data in archives:
            layers.append(write(tmp_path / form, form, data, tuple(layers))[0])
        shown[form] = seen(layers, **options)
    assert shown["erofs"] == shown["tree"]
    return shown["erofs"]


def acl(*entries):
    return b"\2\0\0\0" + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NO = 0xFFFFFFFF
NAMED = acl((1, 7, NO), (2, 6, 100), (4, 5, NO), (8, 4, 200), (16, 7, NO), (32, 4, NO))
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
ATTRIBUTES = [
    file("acl", b"5", mode=0o640, xattrs={ACCESS: NAMED}),
    folder("acldir", mode=0o750, xattrs={ACCESS: NAMED, DEFAULT: NAMED}),
    folder("aclmin", mode=0o750, xattrs={ACCESS: acl((1, 7, NO), (4, 5, NO), (32, 0, NO)), DEFAULT: acl()}),
    file("acldefault", xattrs={DEFAULT: NAMED}),
    *[
        file("aclbad%d" % n, xattrs={ACCESS: bad})
        for n, bad in enumerate(
            [
                b"",
                b"\2\0\0\0",
                NAMED[:-1],
                NAMED[:-8],
                b"\1" + NAMED[1:],
                acl((32, 4, NO), (1, 7, NO), (4, 5, NO)),
                acl((1, 7, NO), (2, 6, 5), (4, 5, NO), (32, 4, NO)),
                acl((1, 9, NO), (4, 5, NO), (16, 7, NO), (32, 4, NO)),
                acl((1, 7, NO), (2, 6, NO), (4, 5, NO), (16, 7, NO), (32, 4, NO)),
            ]
        )
    ],
    *[
        file("capbad%d" % n, xattrs={"security.capability": bad})
        for n, bad in enumerate([b"", b"\1\0\0\2", b"\0\0\0\7" + bytes(16), bytes(20)])
    ],
    file("cap3", xattrs={"security.capability": b"\1\0\0\3" + bytes(16) + struct.pack("<I", 1000)}),
    symlink("attrlink", "x", xattrs={"user.no": b"1", "trusted.yes": b"2", ACCESS: NAMED}),
    fifo("attrfifo", xattrs={"user.no": b"1", "trusted.yes": b"2"}),
    file("strange", xattrs={"btrfs.compression": b"zstd", "system.nfs4_acl": b"x", "nonsense": b"y"}),
]

EVERYTHING = build(
    [
        folder(".", mode=0o755, mtime=5, nsec=6),
        folder("bin", mode=0o711, uid=1, gid=2, nsec=123456789),
        file("bin/su", b"#!suid", mode=0o4755, uid=0, gid=42),
        file("bin/capable", b"x", xattrs={"security.capability": bytes.fromhex("0100000200200000" + "00" * 12)}),
        link("bin/twin", "bin/su"),
        file("empty"),
        file("block", b"z" * 512),
        file("big", os.urandom(70_001), nsec=1),
        symlink("sh", "bin/su", uid=7),
        symlink("dangling", "/no/such/" + "x" * 300),
        link("sh2", "sh"),
        fifo("pipe", mode=0o600),
        char("null", 1, 3, mode=0o666),
        block("disk", 259, 70_000, mode=0o660, gid=6),
        folder("sticky", mode=0o1777),
        folder("setgid", mode=0o2775, gid=50, xattrs={"user.note": b"\0binary\xff", "trusted.t": b""}),
        file("old", mtime=-86400, nsec=500),
        file("new", mtime=4_500_000_000),
        file("huge-owner", uid=4_000_000_000, gid=3_000_000_000),
        file(b"not-utf8-\xff\xfe", b"bytes"),
        file("Case"),
        file("case"),
        file("n\u0303"),
        file("\u00f1"),
        file("/absolute", b"1"),
        file("./dotted//name", b"2"),
        file("deep/" * 40 + "x" * 255, b"3"),
        file("gnu/" + "y" * 200, b"4", gnu=True),
        *ATTRIBUTES,
        *[file("many/%05d" % n, b"%d" % n) for n in range(3000)],
    ]
)  # fmt: skip


def test_everything_a_layer_can_hold_is_shown_alike(tmp_path):
    shown = both(tmp_path, EVERYTHING)
    assert len(shown) > 3080
    assert shown[b"./bin/su"][:3] == (stat.S_IFREG | 0o4755, 0, 42)
    assert shown[b"./bin/su"][8] is not None
    assert shown[b"./bin/su"][8] == shown[b"./bin/twin"][8]
    assert shown[b"./bin"][5] == tars.MTIME * 10**9 + 123456789
    assert shown[b"./old"][5] == -86400 * 10**9 + 500
    assert shown[b"./new"][5] == 4_500_000_000 * 10**9
    assert shown[b"./disk"][4] == os.makedev(259, 70_000)
    assert shown[b"./setgid"][7] == {"user.note": b"\0binary\xff", "trusted.t": b""}
    assert shown[b"./bin/capable"][7]["security.capability"]
    assert shown[b"./sh2"][6] == b"bin/su"
    assert {b"./Case", b"./case", b"./absolute", b"./dotted/name", b"./not-utf8-\xff\xfe"} <= set(shown)


@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 100_000])
def test_pieces_of_any_size_give_the_same_layer(tmp_path, piece):
    data = build([folder("a"), file("a/b" * 60, b"x" * 1000), file("c", b"y" * 512), symlink("l", "a")])
    whole = write(tmp_path / "w", "erofs", data, piece=len(data))[1]
    assert write(tmp_path / "p", "erofs", data, piece=piece)[1] == whole

    def read(at):
        return (tmp_path / at / "layer0" / "index").read_bytes()

    assert read("w") == read("p")


def test_whiteouts_work_wherever_they_stand_and_spare_their_own_layer(tmp_path):
    low = build([folder("d"), file("d/a"), file("d/b"), folder("o"), file("o/old"), file("gone"), folder("re")])
    low = build([file("re/old"), low[:-1024]])
    top = build(
        [
            whiteout("d/a"), opaque("o"), file("o/new"), file("d/c"), whiteout("d/c"), whiteout("gone"),
            whiteout("re"), folder("re"), file("re/new"), whiteout("absent"),
        ]
    )  # fmt: skip
    assert set(both(tmp_path, low, top)) == {
        b".", b"./d", b"./d/b", b"./d/c", b"./o", b"./o/new", b"./re", b"./re/new",
    }  # fmt: skip


def test_opaque_root_hides_all_lower_layers(tmp_path):
    low = build([folder("d"), file("d/a"), file("f")])
    top = build([file("d/b"), opaque("")])
    assert set(both(tmp_path, low, top)) == {b".", b"./d", b"./d/b"}


def test_later_entries_replace_earlier_ones(tmp_path):
    data = build(
        [
            file("a", b"1"), file("a", b"2"), folder("d"), file("d/x"), file("d", b"now a file"),
            file("f"), folder("f"), file("f/y"), folder("m", mode=0o700), file("m/z"), folder("m", mode=0o755),
            symlink("s", "d"), folder("s"), file("s/w"), file("h"), link("i", "h"), file("h", b"new"),
        ]
    )  # fmt: skip
    shown = both(tmp_path, data)
    assert set(shown) == {
        b"." if n == "." else b"./" + n.encode() for n in [".", "a", "d", "f", "f/y", "m", "m/z", "s", "s/w", "h", "i"]
    }
    assert stat.S_IMODE(shown[b"./m"][0]) == 0o755 and shown[b"./i"][3] == 0 and shown[b"./h"][3] == 3


def test_types_change_across_layers(tmp_path):
    low = build([folder("d"), file("d/x"), file("f"), symlink("l", "d")])
    top = build([file("d", b"file"), folder("f"), file("f/y"), folder("l"), file("l/z")])
    shown = both(tmp_path, low, top)
    assert set(shown) == {b".", b"./d", b"./f", b"./f/y", b"./l", b"./l/z"}


def test_writing_through_a_symlink_stays_in_the_image(tmp_path):
    canary = tmp_path / "canary"
    canary.mkdir()
    up = "../" * 30
    data = build(
        [
            symlink("abs", str(canary)), symlink("rel", up + str(canary)[1:]), symlink("lib", "usr/lib"),
            file("abs/a", b"1"), file("rel/b", b"2"), file("lib/c", b"3"), symlink("top", "/"), file("top/d", b"4"),
            symlink("chain", "lib/../../lib"), file("chain/e", b"5"),
        ]
    )  # fmt: skip
    shown = both(tmp_path, data)
    here = b"." + os.fsencode(str(canary))
    assert {here + b"/a", here + b"/b", b"./usr/lib/c", b"./d", b"./usr/lib/e"} <= set(shown)
    assert list(canary.iterdir()) == []


def test_writing_through_a_symlink_of_a_lower_layer_stays_in_the_image(tmp_path):
    low = build([symlink("lib", "usr/lib"), folder("usr/lib", mode=0o750), file("usr/lib/old")])
    top = build([file("lib/new", b"x"), whiteout("lib/old")])
    shown = both(tmp_path, low, top)
    assert set(shown) == {b".", b"./lib", b"./usr", b"./usr/lib", b"./usr/lib/new"}
    assert shown[b"./lib"][6] == b"usr/lib"


def test_directories_nobody_described_keep_their_lower_attributes(tmp_path):
    low = build([folder("tmp", mode=0o1777, uid=3, xattrs={"user.k": b"v"}), folder("tmp/in", mode=0o700)])
    top = build([file("tmp/in/x"), file("fresh/y")])
    shown = both(tmp_path, low, top)
    assert shown[b"./tmp"][:2] == (stat.S_IFDIR | 0o1777, 3) and shown[b"./tmp"][7] == {"user.k": b"v"}
    assert stat.S_IMODE(shown[b"./tmp/in"][0]) == 0o700
    assert shown[b"./fresh"][:3] == (stat.S_IFDIR | 0o755, 0, 0)


def test_hard_links_into_lower_layers_copy_the_file(tmp_path):
    low = build([folder("d"), file("d/f", b"lower", mode=0o640, uid=9, xattrs={"user.x": b"1"}), symlink("s", "d")])
    top = build([link("l1", "d/f"), link("l2", "/s/f"), link("l3", "l1"), file("own", b"1"), link("own2", "own")])
    shown = both(tmp_path, low, top)
    assert shown[b"./l1"][:4] == (stat.S_IFREG | 0o640, 9, 0, 5) and shown[b"./l1"][7] == {"user.x": b"1"}
    assert shown[b"./l1"][8] is not None
    assert shown[b"./l1"][8] == shown[b"./l2"][8] == shown[b"./l3"][8]


@pytest.mark.parametrize(
    "target", ["absent", "d", "s", "../../etc/shadow", "d/../../etc/shadow", "out", "out/shadow", ""]
)
def test_hard_links_to_nothing_are_refused(tmp_path, target):
    low = build([folder("d"), symlink("s", "d"), symlink("out", "/etc")])
    layers = [write(tmp_path / "low", "erofs", low)[0]]
    for form in FORMS:
        with pytest.raises(IntegrityError):
            write(tmp_path / form, form, build([link("l", target)]), tuple(layers))
        with pytest.raises(IntegrityError):
            write(tmp_path / form, form, build([link("l", target)]))


def test_smuggled_overlay_attributes_are_dropped(tmp_path):
    evil = {"trusted.overlay.opaque": b"y", "trusted.overlay.redirect": b"/etc", "user.fine": b"1"}
    layer, _result = write(tmp_path / "e", "erofs", build([folder("d", xattrs=evil)]))
    assert raw(layer)[b"./d"][7] == {"user.fine": b"1"}


def test_layers_record_whiteouts_in_overlay_form(tmp_path):
    low, _result = write(tmp_path / "low", "erofs", build([file("a"), file("n"), file("d/x")]))
    top = build([whiteout("a"), char("n", 0, 0), folder("d"), opaque("d"), whiteout("absent"), whiteout("d/x")])
    for form in FORMS:
        layer, _result = write(tmp_path / form, form, top, (low,))
        shown = raw(layer)
        assert set(shown) == {b".", b"./a", b"./n", b"./d"}
        for name in (b"./a", b"./n"):
            assert shown[name][0] == stat.S_IFCHR and shown[name][4] == 0
        assert shown[b"./d"][7] == {"trusted.overlay.opaque": b"y"}


def test_whiteouts_of_a_base_layer_are_forgotten(tmp_path):
    assert set(both(tmp_path, build([file("d/a"), whiteout("d/b"), whiteout("c"), opaque("")]))) == {
        b".", b"./d", b"./d/a"
    }  # fmt: skip


def test_aufs_metadata_is_skipped_and_its_links_are_kept(tmp_path):
    data = build([folder(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"linked"), link("f", ".wh..wh.plnk/1.2"),
                  file(".wh..wh.aufs"), folder("d"), file("d/.wh..wh.orph")])  # fmt: skip
    shown = both(tmp_path, data)
    assert set(shown) == {b".", b"./f", b"./d"} and shown[b"./f"][3] == 6


def test_ten_thousand_entries_in_one_directory(tmp_path):
    data = build([file("d/%s" % ("n%06d" % (n * 7919 % 10_000)), b"") for n in range(10_000)])
    layer, _result = write(tmp_path / "e", "erofs", data, piece=1 << 18)
    fd = overlay.open_layer(KERNEL, *layer)
    directory = os.open("d", os.O_RDONLY, dir_fd=fd)
    assert sorted(os.listdir(directory)) == ["n%06d" % n for n in range(10_000)]
    assert all(os.stat("n%06d" % n, dir_fd=directory).st_size == 0 for n in range(0, 10_000, 37))
    os.close(directory)
    os.close(fd)


def test_files_past_the_chunk_limit_are_read_right(tmp_path):
    """2.5 GiB, sparse on disk: written past the writer, since only the index is in question."""
    size = (5 << 29) + 3
    data = build([file("small", b"s")], end=False) + tars.header("big", b"0", size)
    directory = tmp_path / "l"
    directory.mkdir()
    writer = LayerWriter(str(directory), form="erofs")
    writer.write(data)
    stream = writer._stream
    marks = {0: b"first", (1 << 30) - 2: b"edge", (1 << 31) + 5: b"third", size - 3: b"end"}
    for at, text in marks.items():
        os.pwrite(writer._tar, text, len(data) + at)
    stream._body = 0
    writer._written = len(data) + size
    writer.finish()
    fd = overlay.open_layer(KERNEL, str(directory), "erofs")
    big = os.open("big", os.O_RDONLY, dir_fd=fd)
    assert os.fstat(big).st_size == size
    for at, text in marks.items():
        assert os.pread(big, len(text), at) == text
    os.close(big)
    os.close(fd)


def sparse_archives():
    real = 10_000_000
    old = bytearray(tars.header("s", b"S", 8, magic=b"ustar  \0"))
    old[386:434] = tars.number(4096, 12) + tars.number(5, 12) + tars.number(real - 3, 12) + tars.number(3, 12)
    old[483:495] = tars.number(real, 12)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    data = tars.padded(b"piece" + b"end")
    yield "old", bytes(old) + data
    common = {"GNU.sparse.realsize": str(real), "GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    text = tars.padded(b"2\n4096\n5\n%d\n3\n" % (real - 3))
    yield "1.0", file("x", text + b"pieceend", records={**common, "GNU.sparse.name": "s"})
    pieces = {"GNU.sparse.size": str(real), "GNU.sparse.name": "s", "GNU.sparse.map": "4096,5,%d,3" % (real - 3)}
    yield "0.1", file("x", b"pieceend", records=pieces)


@pytest.mark.parametrize("kind", ["old", "1.0", "0.1"])
def test_sparse_members_are_extracted(tmp_path, kind):
    data = build([dict(sparse_archives())[kind], file("after", b"1")])
    shown = both(tmp_path, data)
    assert shown[b"./s"][3] == 10_000_000 and shown[b"./after"][3] == 1
    layer, result = write(tmp_path / "again", "erofs", data)
    assert result.form == "tree" and not os.path.exists(layer[0] + "/tar")
    with open(layer[0] + "/tree/s", "rb") as reader:
        content = reader.read()
    assert content[4096:4101] == b"piece" and content[-3:] == b"end" and content.count(0) == 10_000_000 - 8
    assert os.stat(layer[0] + "/tree/s").st_blocks < 100


def test_the_environment_decides_the_form_for_tests(monkeypatch, tmp_path):
    monkeypatch.delenv("WHARF_LAYER_FORM", raising=False)
    assert best_form(KERNEL, str(tmp_path)) == "erofs"
    for form in FORMS:
        monkeypatch.setenv("WHARF_LAYER_FORM", form)
        assert best_form(KERNEL) == form


# -- random archives -------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d/a", "d/b", "d/e/a", "d", "d/e", "l", "l/x", "m/y", "m"])
FIELDS = st.fixed_dictionaries(
    {
        "mode": st.integers(0, 0o7777),
        "uid": st.integers(0, 70_000),
        "gid": st.integers(0, 70_000),
        "mtime": st.integers(0, 1 << 32),
        "nsec": st.integers(0, 999_999_999),
    }
)
MEMBERS = st.one_of(
    st.builds(lambda n, d, f: file(n, d, **f), NAMES, st.binary(max_size=1500), FIELDS),
    st.builds(lambda n, f: folder(n, **f), NAMES, FIELDS),
    st.builds(symlink, NAMES, st.sampled_from(["a", "/d", "../d", "d/e", "/", ".", "l", "m"])),
    st.builds(link, NAMES, NAMES),
    st.builds(whiteout, NAMES),
    st.builds(opaque, st.sampled_from(["", "d", "d/e", "l"])),
    st.builds(lambda n, f: fifo(n, **f), NAMES, FIELDS),
    st.builds(lambda n, f: file(n, b"x", xattrs={"user.a": b"1", "trusted.b": b"2"}, **f), NAMES, FIELDS),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(MEMBERS, max_size=12), min_size=1, max_size=3))
def test_random_archives_look_alike_in_both_forms(tmp_path, layers):
    base = tmp_path / os.urandom(6).hex()
    stacks = {form: [] for form in FORMS}
    for members in layers:
        outcomes = {}
        for form in FORMS:
            try:
                outcomes[form], _result = write(base / form, form, build(members), tuple(stacks[form]))
            except IntegrityError as error:
                outcomes[form] = error.msg
        if isinstance(outcomes["erofs"], str) or isinstance(outcomes["tree"], str):
            assert outcomes["erofs"] == outcomes["tree"]
            continue
        for form in FORMS:
            stacks[form].append(outcomes[form])
    if stacks["tree"]:  # else every archive was refused
        assert seen(stacks["erofs"]) == seen(stacks["tree"])
