# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What reads bytes that strangers write, each as a function of bytes that returns, or raises what is a fault.

A target raises nothing for whatever it is given: a refusal in words (``WharfError``) is an answer, and caught here.
What holds beside that (the fast reader tells what the thorough one tells, a document that passed can be shown) is
checked here too, with ``held``.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from helpers import tars, zstd
from helpers.signing import payload
from module_utils._engine.errors import IntegrityError, RegistryError, UsageError, WharfError
from module_utils._engine.images import candidates, changes, config, erofs, manifest, platform, reference, unpack
from module_utils._engine.images.archive import open_source
from module_utils._engine.images.history import history
from module_utils._engine.images.inspect import inspect
from module_utils._engine.images.resolve import suits
from module_utils._engine.images.tarstream import Sink, TarStream
from module_utils._engine.images.tree import LayerTree
from module_utils._engine.images.trust import der, keys, signatures
from module_utils._engine.registry import auth, client, credentials, discovery, replies, toml, transport, uploads
from module_utils._engine.registry import mediatypes as media
from module_utils._engine.store.records import ImageRecord, LayerRef
from module_utils._engine.templates import Template

D = "sha256:" + "ab" * 32
HOST = platform.Platform("linux", "amd64")


class Target(NamedTuple):
    """``seeds``: inputs that are read. ``words``: what its language is made of. ``length``: of the longest input."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    length: int = 4096


class NotHeld(Exception):
    """Something that should hold for every input does not."""


def held(what: str, truth: bool) -> None:
    if not truth:
        raise NotHeld(what)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def dumped(document: object) -> bytes:
    return json.dumps(document).encode()


# -- references ----------------------------------------------------------------------------------------------------


def references(data: bytes) -> None:
    text = text_of(data)
    try:
        reference.check_registry(text)
    except UsageError:
        pass
    try:
        platform.parse(text)
    except UsageError:
        pass
    try:
        found = reference.parse(text)
    except UsageError:
        return
    held("the normal form is a fixed point", str(reference.parse(str(found))) == str(found))
    held("the short form means the same", reference.parse(found.familiar()) == found)
    held("no way up", ".." not in found.path.split("/") and not found.path.startswith("/"))
    held("the name is short enough", len(found.domain) + 1 + len(found.path) <= reference.NAME_LIMIT)


# -- documents -----------------------------------------------------------------------------------------------------

_LAYER = {"mediaType": media.OCI_LAYER_GZIP, "digest": D, "size": 10}
_CONFIG = {"mediaType": media.OCI_CONFIG, "digest": D, "size": 10}
_MANIFEST = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": _CONFIG, "layers": [_LAYER]}
_ENTRY = {
    "mediaType": media.OCI_MANIFEST, "digest": D, "size": 10,
    "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}, "annotations": {"a": "b"},
}  # fmt: skip
_INDEX = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [_ENTRY]}
_KINDS = ("", media.OCI_MANIFEST, media.OCI_INDEX, media.DOCKER_MANIFEST, "text/html")


def manifests(data: bytes) -> None:
    """The first byte chooses the content type."""
    kind = _KINDS[data[0] % len(_KINDS)] if data else ""
    try:
        found = manifest.parse_manifest(data[1:], kind, subject="x")
        if isinstance(found, manifest.Manifest):
            held("a manifest holds no list of manifests", b'"manifests"' not in data or b"\\u" in data or _nested(data))
            manifest.require_image(found, "x")
        else:
            chosen = platform.choose(found, HOST)
            held("what is chosen is in the list", chosen in found.manifests)
            held("an attestation is not run", not platform.is_attestation(chosen))
    except WharfError as error:
        held("a refusal has words", bool(error.msg) and "\n" not in error.msg)


def _nested(data: bytes) -> bool:
    return "manifests" not in json.loads(data[1:])


_IMAGE = {
    "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
    "config": {
        "Env": ["A=b"], "Cmd": ["sh"], "Entrypoint": None, "User": "1:2", "Labels": {"a": "b"}, "Volumes": {"/v": {}},
        "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/", "StopSignal": "SIGINT", "Shell": ["sh"],
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000000, "Retries": 3},
    },
    "rootfs": {"type": "layers", "diff_ids": [D]},
    "history": [{"created_by": "x", "empty_layer": True}, {"comment": "c"}],
}  # fmt: skip


class _NoLayers:
    class layers:
        @staticmethod
        def get(_chain: str) -> None:
            return None


def configs(data: bytes) -> None:
    try:
        document = config.parse_config(data, subject="x")
    except WharfError as error:
        held("a refusal has words", bool(error.msg))
        return
    suits(document, HOST)
    json.dumps(document, ensure_ascii=False).encode()
    ids = document["rootfs"]["diff_ids"]
    layers = tuple(LayerRef(one, chain, D, 1, "t") for one, chain in zip(ids, config.chain_ids(ids)))
    record = ImageRecord(D, D, "t", document, 1, 1.0, layers)
    json.dumps(inspect(record, ["docker.io/library/x:1"], []))
    rows = history(_NoLayers(), record, [])  # type: ignore[arg-type]
    json.dumps(rows)
    held("every layer has a row", len(rows) >= len(layers))
    inner = document.get("config") or {}
    for name in ("Env", "Cmd", "Entrypoint"):
        held("%s is a list of text" % name, all(isinstance(item, str) for item in inner.get(name) or []))
    changes.apply(["ENV Z=$A"], inner)


def instructions(data: bytes) -> None:
    try:
        json.dumps(changes.apply(text_of(data).split("\0"), {"Env": ["A=b"]}))
    except WharfError as error:
        held("a refusal has words", bool(error.msg))


# -- archives ------------------------------------------------------------------------------------------------------


class _Collector(Sink):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def entry(self, entry: Any) -> bool:
        self.told.append(entry)
        return bool(entry.kind == stat.S_IFREG)

    def data(self, piece: Any) -> None:
        if isinstance(self.told[-1], bytes):
            self.told[-1] += bytes(piece)
        else:
            self.told.append(bytes(piece))

    def end(self) -> None:
        self.told.append("end")


def _told(data: bytes, piece: int) -> object:
    sink = _Collector()
    stream = TarStream(sink, max_entries=100, max_size=1 << 30)
    try:
        for at in range(0, len(data), piece):
            stream.write(data[at : at + piece])
        stream.close()
    except IntegrityError as error:
        return [one for one in sink.told if not isinstance(one, (bytes, str))], error.msg
    return sink.told, stream.entries, stream.newest, stream.offset


def archives(data: bytes) -> None:
    """The first byte says whether checksums are mended, so that more than the first header is looked at."""
    if data[:1] < b"\x80":
        data = tars.repaired(data[1:])
    else:
        data = data[1:]
    thorough = _told(data, 500)
    held("the fast reader tells what the thorough one tells", _told(data, len(data) or 1) == thorough)
    held("pieces do not matter", _told(data, 1500) == thorough)
    tree = LayerTree()
    stream = TarStream(tree, max_entries=100, max_size=1 << 30)
    try:
        stream.write(data)
        stream.close()
        tree.finish()
    except IntegrityError:
        return
    fd = os.memfd_create("index")
    try:
        erofs.write_index(tree, fd, tar_size=len(data), uuid=bytes(16))
    except IntegrityError:
        return
    finally:
        os.close(fd)


def saved(data: bytes) -> None:
    """An archive of images. The parts of the input, cut at NULs, are its manifest.json, index.json, oci-layout, and
    blobs, which are called ``%0`` and so on where their digest (without its algorithm) is meant, ``%n`` their size."""
    parts = data.split(b"\0")[:10]
    blobs = list(parts[3:])
    for number in range(len(blobs)):
        digest = hashlib.sha256(blobs[number]).hexdigest().encode()
        size = b"%d" % len(blobs[number])
        for where in (parts, blobs):
            for other in range(len(where)):
                if (where is parts and other >= 3) or (where is blobs and other <= number):
                    continue
                where[other] = where[other].replace(b"%%%d" % number, digest).replace(b'"%%n%d"' % number, size)
    members = [
        tars.file(name, part) for name, part in zip(("manifest.json", "index.json", "oci-layout"), parts) if part
    ]
    members += [tars.file(b"blobs/sha256/" + hashlib.sha256(blob).hexdigest().encode(), blob) for blob in blobs]
    fd = os.memfd_create("saved")  # nothing stays when the process is killed
    try:
        os.write(fd, tars.build(members))
        with open_source("/proc/self/fd/%d" % fd, "/dev/shm") as source:
            for one in candidates.survey(source, HOST):
                config.parse_config(one.config, layers=len(one.parts), subject="x")
                one.shown()
    except WharfError as error:
        held("a refusal has words", bool(error.msg))
    finally:
        os.close(fd)


def _saved_seed() -> bytes:
    blobs = [dumped(_IMAGE), b"layer"]
    inner = {**_MANIFEST, "config": {**_CONFIG, "digest": "sha256:%0", "size": "%n0"}}
    inner["layers"] = [{**_LAYER, "digest": "sha256:%1", "size": "%n1"}]
    index = {"schemaVersion": 2, "manifests": [{**_ENTRY, "digest": "sha256:%2", "size": "%n2"}]}
    index["manifests"][0].pop("platform")  # type: ignore[index]
    docker = [{"Config": "blobs/sha256/%0", "RepoTags": ["a:1"], "Layers": ["blobs/sha256/%1"]}]
    layout = {"imageLayoutVersion": "1.0.0"}
    return b"\0".join([dumped(docker), dumped(index), dumped(layout), *blobs, dumped(inner)])


def unpacked(data: bytes) -> None:
    class Source:
        def __init__(self) -> None:
            self.offset = 0

        def read(self) -> bytes:
            piece = data[self.offset : self.offset + 1000]
            self.offset += len(piece)
            return piece

    out = bytearray()
    try:
        count = unpack.unpack_source(Source(), out.extend, subject="x")  # type: ignore[arg-type]
    except WharfError as error:
        held("a refusal has words", bool(error.msg))
        return
    held("every byte is counted", count == len(out))
    if data[:2] == b"\x1f\x8b":
        held("gzip means what it means to Python", gzip.decompress(data) == bytes(out))


# -- what registries say -------------------------------------------------------------------------------------------


def answers(data: bytes) -> None:
    """The first line is a header's value, the rest a body."""
    head, _line, body = data.partition(b"\n")
    value = head.decode("latin-1")
    for challenge in auth.parse_challenges([value]):
        held("a scheme is lower case", challenge.scheme == challenge.scheme.lower())
    start, total = client._content_range(value)
    held("a range is one or none", start >= -1 and total >= -1)
    replies.retry_after(_Headers(value), 0.0)  # type: ignore[arg-type]
    said = replies.error_text(body)
    held("a registry's words are one short line", len(said) <= 300 and (not said or said.isprintable()))
    for ask in (
        lambda: transport.origin(client.next_page(value, "https://r.example/v2/x/tags/list") or "https://r.example/"),
        lambda: transport.joined("https://r.example/v2/", value),
        lambda: auth._read_token(body, "h"),
        lambda: auth._refresh_token(body, "h"),
        lambda: client._names(body, "tags", "the tags", "h"),
    ):
        try:
            ask()
        except RegistryError as error:
            held("a refusal has words", bool(error.msg))
    auth._issuer(text_of(body))
    json.dumps([discovery._referrer(entry, "s") for entry in discovery._entries(body) or []])
    uploads._end_of(value)


class _Headers:
    def __init__(self, value: str) -> None:
        self.headers = {"retry-after": value}


def logins(data: bytes) -> None:
    try:
        document = credentials.read_document(data, "f")
    except WharfError as error:
        held("a refusal has words", bool(error.msg))
        return
    for host in ("docker.io", "r.example:5000"):
        found = credentials._entry(document, host, "a/b", "f")
        held("a login has something to log in with", found is None or any(found[:4]))
        name = credentials._helper(document, host)
        held("a helper's name is no path", "/" not in name and "." not in name)


def mirrors(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        found = toml.loads_subset(text)
    except toml.TomlError:
        return
    try:
        import tomllib
    except ImportError:
        return  # the oracle came with Python 3.11
    try:
        wanted = tomllib.loads(text)
    except ValueError:
        return  # more lenient is no harm
    held("the subset means what Python's parser says", repr(found) == repr(wanted))


def signed(data: bytes) -> None:
    for reader in (signatures._bundle, signatures._simple):
        try:
            found = reader("here", data, {"dev.cosignproject.cosign/signature": "AAAA"})
        except (RegistryError, signatures._Unreadable):
            continue
        held("a signature is about something", bool(found.digests) and not found.fault)


_PEM = (
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n"
    "6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n"
)


def public_keys(data: bytes) -> None:
    try:
        for key in keys._keys(text_of(data), "x"):
            held("nothing is signed by nobody", not key.verify(b"", b"m"))
    except WharfError as error:
        held("a refusal has words", bool(error.msg))
    try:
        keys._subject_public_key(data, "x")
    except (WharfError, der.Malformed):
        return


# -- templates -----------------------------------------------------------------------------------------------------

_DATA = {"Name": "n", "List": [1, 2.5, "x", None], "Map": {"a": {"b": True}}, "Null": None, "Number": 42}


def templates(data: bytes) -> None:
    text = text_of(data)
    try:
        made = Template(text, {"List": "list", "Map": "map"}).render(_DATA)
    except UsageError as error:
        held("a refusal says where", error.details["line"] >= 1 and error.details["column"] >= 0)
        return
    held("plain text stays what it is", "{{" in text or made == text)


TARGETS = {
    "reference": Target(
        references,
        (b"busybox", b"localhost:5000/a/b:t", b"[::1]:5000/app@" + D.encode(), b"https://index.docker.io/v1/"),
        (b"sha256:", b"docker.io/", b"localhost", b"linux/arm64/v8"),
        400,
    ),
    "manifest": Target(
        manifests,
        (b"\0" + dumped(_MANIFEST), b"\0" + dumped(_INDEX), b"\x03" + dumped({"schemaVersion": 1, "fsLayers": []})),
        tuple(dumped(word) for word in (*_MANIFEST, *_ENTRY, *_INDEX, "artifactType", "urls", *_KINDS, D)),
    ),
    "config": Target(
        configs,
        (dumped(_IMAGE), dumped({"rootfs": {"diff_ids": []}})),
        tuple(dumped(word) for word in (*_IMAGE, *_IMAGE["config"], "diff_ids", "empty_layer", D)),  # type: ignore[misc]
    ),
    "changes": Target(
        instructions,
        (
            b"CMD [\"a\"]\0ENV A=$A B=${A:-c}\0EXPOSE 80/tcp 1-3\0LABEL a='b c'\0USER 1:2",
            b"HEALTHCHECK --interval=1m30s --retries=3 CMD x\0VOLUME /a /b\0WORKDIR $A\0STOPSIGNAL 9\0ONBUILD RUN x",
        ),
        (b"ENTRYPOINT ", b"HEALTHCHECK NONE", b"--start-period=", b"${A:+", b"\\", b"/udp"),
    ),
    "tar": Target(
        archives,
        (
            b"\0" + tars.sampler(),
            b"\xff" + tars.sampler(),
            b"\0" + tars.build([tars.folder("d"), tars.file("d/f", b"x" * 600), tars.link("l", "d/f"), tars.whiteout("g")]),  # noqa: E501
            b"\0" + tars.build([tars.pax({"path": "p", "size": "3"}), tars.file("x", b"abc"), tars.symlink("s", "../x")]),  # noqa: E501
        ),
        (b"ustar\x0000", b"ustar  \0", b"././@LongLink", b"GNU.sparse.major=1\n", b".wh..wh..opq", b"0000644\0"),
        16384,
    ),
    "saved": Target(saved, (_saved_seed(),), (b"%0", b'"%n1"', b"blobs/sha256/", b"RepoTags", b"\0"), 8192),
    "unpack": Target(
        unpacked,
        (gzip.compress(b"a" * 3000, mtime=0) + gzip.compress(b"b", mtime=0), zstd.frame(b"abc") + zstd.skippable(b"x"),
         b"plain" * 200),
        (b"\x1f\x8b\x08", zstd.MAGIC),
    ),
    "answer": Target(
        answers,
        (
            b'Bearer realm="https://a.example/t",service="s",scope="repository:x:pull", Basic realm="x"\n{"token":"t"}',
            b'<https://r.example/v2/x/tags/list?n=5>; rel="next"\n{"tags":["a"],"expires_in":300,"access_token":"t"}',
            b'bytes 10-99/100\n{"errors":[{"code":"DENIED","message":"no"}]}',
            b'Wed, 21 Oct 2026 07:28:00 GMT\n{"refresh_token":"r"}',
            b'/v2/x\n{"results":[{"name":"x","description":"d","star_count":1,"is_official":true}]}',
        ),
        (b"expires_in", b"1e999", b"9" * 40, b"[", b"//[", b"\\"),
        8192,
    ),
    "logins": Target(
        logins,
        (
            dumped({"auths": {"r.example:5000/a": {"auth": "YTpi"}, "https://index.docker.io/v1/": {"username": "a"}}}),
            dumped({"credHelpers": {"docker.io": "x"}, "credsStore": "y", "auths": {"docker.io": {"identitytoken": "t"}}}),  # noqa: E501
        ),
        (b"registrytoken", b"password", b"credHelpers"),
    ),
    "mirrors": Target(
        mirrors,
        (b'[[registry]]\nprefix = "a"\nlocation = \'b\'\ninsecure = true\n[[registry.mirror]]\nlocation = "c"\n',
         b'a.b."c d" = "\\u00e9\\t\\"" # x\r\n[t]\nx=1\n[t.u]\ny = [ 1, # one\n 2,\n]\nz = {w = {}}\n'),
        (b"[[", b"]]", b'"""', b"'''", b"\\U0001f600", b"-12_000", b"false"),
    ),
    "signature": Target(
        signed,
        (
            payload(D, "docker.io/library/x"),
            dumped({
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "dsseEnvelope": {
                    "payloadType": "application/vnd.in-toto+json",
                    "payload": "eyJfdHlwZSI6Imh0dHBzOi8vaW4tdG90by5pby9TdGF0ZW1lbnQvdjEifQ==",
                    "signatures": [{"sig": "AAAA"}],
                },
            }),
        ),
        (b"critical", b"identity", b"verificationMaterial", b"https://sigstore.dev/cosign/sign/v1"),
    ),
    "key": Target(
        public_keys, (_PEM.encode(),), (b"-----BEGIN PUBLIC KEY-----\n", b"-----BEGIN RSA PUBLIC KEY-----\n")
    ),
    "template": Target(
        templates,
        (
            b'{{range $i, $e := .List}}{{if gt $i 1}}{{printf "%05d|%-8q" $i $e}}{{else}}{{break}}{{end}}{{end}}',
            b'{{with .Map.a}}{{.b | json}}{{end}}{{- /* c */ -}}{{index .Map "a" "b"}} {{len .List}} {{.Name | upper}}',
            b'{{define "t"}}{{.}}{{end}}{{template "t" .Number}}{{slice .Name 0 1}}{{eq .Null nil}}{{table}}',
        ),
        (b"{{", b"}}", b"{{end}}", b"printf ", b"%*d", b"join ", b"split ", b"$x := ", b"block ", b"continue", b"0x1p-2"),  # noqa: E501
        1000,
    ),
}  # fmt: skip
