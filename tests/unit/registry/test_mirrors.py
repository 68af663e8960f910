# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mirrors: which, in which order, and what happens when they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers import fake_registry as fake
from helpers.fake_registry import FakeRegistry
from helpers.images import build_image, layer
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import IntegrityError, NotFound, RegistryError, StateError, UsageError
from module_utils._engine.images import pull as pulling
from module_utils._engine.images.reference import parse
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.registry import mirrors, toml
from module_utils._engine.registry.transport import Transport
from module_utils._engine.store.state import Store

IMAGE = build_image([layer({"a": b"x" * 5000})])


class Host:
    """The host's own files."""

    def __init__(self, path: Path) -> None:
        self.own = str(path / "mirrors.json")
        self.conf = path / "registries.conf"
        self.daemon = path / "daemon.json"

    def places(self, name: str) -> list[str]:
        parsed = parse(name)
        found = mirrors.locations(self.own, parsed.domain, parsed.path, bool(parsed.digest))
        return ["%s/%s%s%s" % (p.host, p.repository, "+" * p.insecure, "-" * p.plain) for p in found]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    one = Host(tmp_path)
    monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)
    monkeypatch.setattr(mirrors, "CONF", str(one.conf))
    monkeypatch.setattr(mirrors, "DAEMON", str(one.daemon))
    return one


def test_without_files_there_is_the_registry(host: Host) -> None:
    assert host.places("busybox") == ["docker.io/library/busybox"]


def test_dockers_mirrors_are_for_the_hub_only(host: Host) -> None:
    host.daemon.write_text(
        json.dumps(
            {
                "registry-mirrors": ["https://m1.example/", "http://10.0.0.1:5000"],
                "insecure-registries": ["r.example.com:5000", "10.9.0.0/16"],
            }
        )
    )
    assert host.places("a/b") == ["m1.example/a/b", "10.0.0.1:5000/a/b+-", "docker.io/a/b"]
    assert host.places("r.example.com/x") == ["r.example.com/x"]
    assert host.places("r.example.com:5000/x") == ["r.example.com:5000/x+"]
    assert host.places("10.9.8.7:5000/x") == ["10.9.8.7:5000/x+"]


CONF = """\
unqualified-search-registries = ["docker.io", 'quay.io'] # not ours
short-name-mode = "enforcing"

[[registry]]
prefix = "docker.io/library"
location = "base.example/hub"
[[registry.mirror]]
location = "m1.example:5000/hub"
insecure = true
[[registry.mirror]]
location = "m2.example/only-digests"
pull-from-mirror = "digest-only"

[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "m3.example"

[[registry]]
prefix = "*.corp.example"
[[registry.mirror]]
location = "m4.example/corp"
pull-from-mirror = "tag-only"

[[registry]]
location = "bad.example/team"
blocked = true

[aliases]
"busybox" = "evil.example/busybox"
"""


def test_podmans_mirrors(host: Host) -> None:
    host.conf.write_text(CONF)
    assert host.places("busybox") == ["m1.example:5000/hub/busybox+", "base.example/hub/busybox"]
    assert host.places("busybox@sha256:" + "0" * 64) == [
        "m1.example:5000/hub/busybox+", "m2.example/only-digests/busybox", "base.example/hub/busybox",
    ]  # fmt: skip
    assert host.places("a/b") == ["m3.example/a/b", "docker.io/a/b"]
    assert host.places("x.corp.example:5000/a") == ["m4.example/corp/a", "x.corp.example:5000/a"]
    assert host.places("x.corp.example/a@sha256:" + "0" * 64) == ["x.corp.example/a"]
    assert host.places("bad.example/teams/x") == ["bad.example/teams/x"]
    with pytest.raises(RegistryError, match=r"bad\.example/team is blocked by"):
        host.places("bad.example/team/x")


def test_later_files_overrule_and_ours_come_first(host: Host) -> None:
    host.conf.write_text(CONF)
    fragments = Path(str(host.conf) + ".d")
    fragments.mkdir()
    (fragments / "a.conf").write_text('registry = [{location = "docker.io", mirror = [{location = "m5.example"}]}]\n')
    (fragments / "ignored.txt").write_text("[[")
    host.daemon.write_text('{"registry-mirrors": ["https://m6.example", "https://m5.example"]}')
    mirrors.store(host.own, "docker.io", ["https://m7.example/p"])
    assert host.places("a/b") == ["m7.example/p/a/b", "m5.example/a/b", "m6.example/a/b", "docker.io/a/b"]
    mirrors.store(host.own, "docker.io", [])
    assert host.places("a/b")[0] == "m5.example/a/b" and mirrors.load(host.own) == {}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("conf", '[[registry]]\nlocation = "x"\n[[registry.mirror]]\nlocation = ""\n'),
        ("conf", "[[registry]\n"),
        ("conf", "registry = 1\n"),
        ("conf", '[[registry]]\nlocation = "x"\nmirror = "y"\n'),
        ("daemon", "{"),
        ("daemon", "[]"),
        ("daemon", '{"registry-mirrors": "https://x"}'),
        ("daemon", '{"registry-mirrors": ["ftp://x"]}'),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(host: Host, file: str, text: str) -> None:
    path: Path = getattr(host, file)
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        host.places("busybox")
        mirrors.locations(host.own, "x", "y", False)
    assert caught.value.path == str(path) and str(path) in caught.value.msg


def test_our_own_file_damaged(host: Host) -> None:
    Path(host.own).write_text('{"docker.io": "x"}')
    with pytest.raises(StateError):
        host.places("busybox")


@pytest.mark.parametrize("bad", ["ftp://x", "https://", "https://u@x", "https://x?y", "x y"])
def test_mirrors_are_addresses(bad: str) -> None:
    with pytest.raises(UsageError):
        mirrors.check(bad)
    assert mirrors.check("m.example:5000/hub/") == "https://m.example:5000/hub"
    assert mirrors.check("http://m.example") == "http://m.example"


# -- pulling through them ------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(Paths(str(tmp_path / "state"), str(tmp_path / "run"))) as store:
        yield store


@pytest.fixture
def pair() -> Iterator[tuple[FakeRegistry, FakeRegistry]]:
    with FakeRegistry() as mirror, FakeRegistry() as registry:
        registry.add("team/app", "1", IMAGE)
        yield mirror, registry


def transport(host: Host) -> Transport:
    known = partial(mirrors.locations, host.own)
    return Transport(timeout=5, sleep=lambda _s: None, mirrors=known)


def pull(store: Store, host: Host, name: str) -> pulling.PullReport:
    return pulling.pull_report(store, Kernel(), parse(name), transport=transport(host))


def test_a_mirror_with_the_image_is_enough(store: Store, host: Host, pair: Any) -> None:
    mirror, registry = pair
    mirror.add("hub/team/app", "1", IMAGE)
    mirrors.store(host.own, registry.host, [mirror.url + "/hub"])
    name = registry.host + "/team/app:1"
    assert pulling.check(store, transport(host), parse(name)).changed
    report = pull(store, host, name)
    assert report.image.id == IMAGE.id and not registry.requests and report.warnings == []
    assert store.images.references(IMAGE.id) == [name]
    assert store.images.repo_digests(IMAGE.id) == ["%s/team/app@%s" % (registry.host, IMAGE.top)]
    count = len(mirror.requests)
    assert not pull(store, host, name).changed and len(mirror.requests) == count + 1


def test_a_mirror_without_it_is_passed_over_silently(store: Store, host: Host, pair: Any) -> None:
    mirror, registry = pair
    mirrors.store(host.own, registry.host, [mirror.url])
    report = pull(store, host, registry.host + "/team/app:1")
    assert report.changed and report.warnings == [] and mirror.requests


@pytest.mark.parametrize("fault", ["refused", "5xx", "html", "login", "bytes"])
def test_a_mirror_that_fails_is_passed_over_with_a_warning(store: Store, host: Host, pair: Any, fault: str) -> None:
    mirror, registry = pair
    mirror.add("team/app", "1", IMAGE)
    url = mirror.url
    if fault == "refused":
        url = "http://127.0.0.1:1"
    elif fault == "5xx":
        mirror.script("/", fake.status(503), times=1000)
    elif fault == "html":
        mirror.script("/manifests/", fake.web_page(), times=1000)
    elif fault == "login":
        mirror.auth = ("basic", "me", "x")
    else:
        mirror.script("/blobs/", fake.body_of(b"y" * 100), times=1000)
    mirrors.store(host.own, registry.host, [url])
    report = pull(store, host, registry.host + "/team/app:1")
    assert report.image.id == IMAGE.id
    assert len(report.warnings) == 1 and report.warnings[0].startswith("The mirror 127.0.0.1:")


def test_the_last_error_tells_of_all_mirrors(store: Store, host: Host, pair: Any) -> None:
    mirror, registry = pair
    mirror.script("/", fake.status(403), times=1000)
    mirrors.store(host.own, registry.host, ["http://127.0.0.1:1", mirror.url])
    words = r"2 does not exist.*before that, mirror 127\.0\.0\.1:1: .*refused.*denied"
    with pytest.raises(NotFound, match=words) as caught:
        pull(store, host, registry.host + "/team/app:2")
    told = caught.value.details["mirrors"]
    assert [one["mirror"] for one in told] == ["127.0.0.1:1", mirror.host] and told[0]["from"] == host.own


def test_a_lying_mirror_cannot_change_what_a_digest_names(store: Store, host: Host, pair: Any) -> None:
    mirror, registry = pair
    other = build_image([layer({"a": b"evil"})])
    mirror.add("team/app", "1", other)
    mirror.manifests[("team/app", IMAGE.top)] = other.manifests[other.top]
    registry.script("/manifests/", fake.status(503), times=1000)
    mirrors.store(host.own, registry.host, [mirror.url])
    with pytest.raises((RegistryError, IntegrityError)):
        pull(store, host, "%s/team/app@%s" % (registry.host, IMAGE.top))
    assert store.images.list() == []


def test_a_mirror_never_gets_the_registrys_login(store: Store, host: Host, pair: Any) -> None:
    from module_utils._engine.registry.credentials import Credential

    mirror, registry = pair
    mirror.auth = registry.auth = ("basic", "me", "secret")
    mirrors.store(host.own, registry.host, [mirror.url])
    known = {registry.host: Credential("me", "secret")}
    one = Transport(
        timeout=5,
        sleep=lambda _s: None,
        mirrors=partial(mirrors.locations, host.own),
        credentials=lambda name, _repository: known.get(name),
    )
    report = pulling.pull_report(store, Kernel(), parse(registry.host + "/team/app:1"), transport=one)
    assert report.image.id == IMAGE.id
    assert mirror.requests and not any("authorization" in request.headers for request in mirror.requests)


# -- TOML ----------------------------------------------------------------------------------------------------------


tomllib = pytest.importorskip("tomllib", reason="the oracle came with Python 3.11")


@pytest.mark.parametrize(
    "text",
    [
        CONF,
        "",
        "# only a comment",
        'a.b."c d" = "\\u00e9\\t\\"" # x\r\n[t]\n\nx=1\n[t.u]\ny = [ 1, # one\n 2,\n]\nz = []\n',
        "[[a]]\nx = {y = 'z', w = {}}\n[[a.b]]\nc = true\n[[a.b]]\n[[a]]\nn = -12_000\n",
    ],
)
def test_the_subset_reads_as_pythons_parser(text: str) -> None:
    assert toml.loads_subset(text) == tomllib.loads(text) == toml.loads(text)


@pytest.mark.parametrize(
    "text", ["a", "a =", "= 1", "[a", "[[a]", 'a = "x', "a = [1", "a = {b = 1", "a = 1 b = 2", "a = 1\na = 2",
             'a = """x"""', "a = 1979-05-27", 'a = "\\q"', "a = [1 2]", "a = +-1", "a = 1__0",
             "[a]\nb = 1\n[[a.b]]", "a = nope"],
)  # fmt: skip
def test_what_the_subset_does_not_know_is_an_error_with_a_line(text: str) -> None:
    with pytest.raises(toml.TomlError, match="line"):
        toml.loads_subset(text)


@given(st.text(alphabet="[]{}=\"'\\,.# \n\tab1u", max_size=40))
def test_whatever_the_subset_accepts_means_the_same_to_python(text: str) -> None:
    try:
        found = toml.loads_subset(text)
    except toml.TomlError:
        return
    try:
        wanted = tomllib.loads(text)
    except ValueError:
        return  # more lenient is no harm
    assert found == wanted
