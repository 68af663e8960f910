# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pulls from a real registry, filled by skopeo: plain, with TLS, with a login; large, within memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from helpers.images import DOCKER, build_image, build_index, host_architecture, layer, push
from helpers.registry import Registry, available
from module_utils._engine import process
from module_utils._engine.errors import AuthError, DiskFull, NotFound, RegistryError
from module_utils._engine.images import pull as pulling
from module_utils._engine.images import zstd
from module_utils._engine.images.reference import parse
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.paths import Paths
from module_utils._engine.registry import credentials
from module_utils._engine.registry.client import RegistryClient
from module_utils._engine.registry.transport import Broken, Transport
from module_utils._engine.store.state import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not available(), reason="docker-registry and skopeo are needed"),
]

IMAGE = build_image(
    [layer({"bin/sh": os.urandom(200_000), "etc/name": b"one"}), layer({"etc/second": b"two"})],
    config={"Cmd": ["/bin/sh"]},
)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(Paths(str(tmp_path / "state"), str(tmp_path / "run"))) as store:
        yield store


@pytest.fixture
def layout(tmp_path: Path) -> str:
    return IMAGE.write_layout(str(tmp_path / "layout"), "1") + ":1"


def pull(store: Store, name: str, transport: Optional[Transport] = None, **options: Any) -> pulling.PullReport:
    return pulling.pull_report(store, Kernel(), parse(name), transport=transport or Transport(timeout=10), **options)


def test_what_skopeo_pushed_is_pulled_bit_by_bit(store: Store, layout: str, tmp_path: Path) -> None:
    with Registry(str(tmp_path)) as registry:
        registry.push_layout(layout, "team/app:1")
        name = "%s/team/app:1" % registry.host
        report = pull(store, name)
        assert report.image.id == IMAGE.id and report.digest == IMAGE.top
        assert not pull(store, name).changed and not pulling.check(store, Transport(), parse(name)).changed
        assert pull(store, "%s/team/app@%s" % (registry.host, IMAGE.top)).received == 0
        client = RegistryClient(registry.host, Transport())
        assert client.ping()["auth"] == "none" and client.tags("team/app") == ["1"]
        assert client.catalog() == ["team/app"]
        with pytest.raises(NotFound):
            pull(store, "%s/team/app:2" % registry.host)


def test_docker_schema_2_and_indexes_by_push_over_http(store: Store, tmp_path: Path) -> None:
    with Registry(str(tmp_path)) as registry:
        image = build_image([layer({"a": b"1"})], types=DOCKER)
        other = build_image([layer({"a": b"2"})], types=DOCKER, architecture="s390x")
        index = build_index({"linux/s390x": other, "linux/" + host_architecture(): image}, types=DOCKER)
        assert push(index, registry.url, "team/app", "1") == index.top
        report = pull(store, "%s/team/app:1" % registry.host)
        assert report.image.id == image.id and report.digest == index.top
        assert pull(store, "%s/team/app:1" % registry.host, platform="linux/s390x").image.id == other.id


def test_docker_schema_2_converted_by_skopeo(store: Store, layout: str, tmp_path: Path) -> None:
    with Registry(str(tmp_path)) as registry:
        registry.push_layout(layout, "team/app:d", "--format", "v2s2")
        report = pull(store, "%s/team/app:d" % registry.host)
        assert report.image.manifest_type == DOCKER["manifest"]
        assert [one.diff_id for one in report.image.layers] == IMAGE.diff_ids


@pytest.mark.skipif(zstd.backend() is None, reason="nothing here reads zstd")
def test_zstd_layers_made_by_skopeo(store: Store, layout: str, tmp_path: Path) -> None:
    with Registry(str(tmp_path)) as registry:
        registry.push_layout(layout, "team/app:z", "--dest-compress-format", "zstd", "--dest-compress-level", "19")
        report = pull(store, "%s/team/app:z" % registry.host)
        assert report.image.id == IMAGE.id and report.digest != IMAGE.top
        kinds = {one.media_type.rpartition("+")[2] for one in report.image.layers}
        assert kinds == {"zstd"}, "skopeo reused the gzip blobs"


def test_tls_is_verified_where_an_authority_is_given(store: Store, layout: str, tmp_path: Path) -> None:
    with Registry(str(tmp_path), tls=True) as registry:
        registry.push_layout(layout, "team/app:1")
        name = "%s/team/app:1" % registry.host
        assert pull(store, name, Transport(ca_path=registry.ca, timeout=10)).changed
        other = tmp_path / "other"
        Registry(str(other), tls=True)
        with pytest.raises(Broken, match="certificate cannot be verified") as caught:
            RegistryClient(registry.host, Transport(ca_path=str(other / "registry/ca.crt"), timeout=10)).ping()
        assert "ca_path" in (caught.value.hint or "")
        assert RegistryClient(registry.host, Transport(timeout=10)).ping()["url"] == registry.url
        directory = tmp_path / "certs"
        directory.mkdir()
        (directory / "ca.crt").write_bytes(Path(registry.ca).read_bytes())
        assert RegistryClient(registry.host, Transport(ca_path=str(directory), timeout=10)).ping()


def test_a_login_is_needed_verified_and_used(store: Store, layout: str, tmp_path: Path) -> None:
    with Registry(str(tmp_path), tls=True, users=("me", "secret")) as registry:
        registry.push_layout(layout, "team/app:1")
        name = "%s/team/app:1" % registry.host
        auth = str(tmp_path / "state/auth.json")
        transport = Transport(ca_path=registry.ca, timeout=10, auth_file=auth)
        with pytest.raises(AuthError):
            pull(store, name, transport)
        assert RegistryClient(registry.host, transport).ping() == {
            "url": registry.url,
            "auth": "basic",
            "logged_in": False,
            "version": "",
        }
        with pytest.raises(AuthError, match="refused"):
            credentials.login(transport, auth, registry.host, "me", "wrong")
        assert credentials.login(transport, auth, registry.host, "me", "secret")
        assert pull(store, name, transport).changed
        assert RegistryClient(registry.host, transport).ping()["logged_in"]
        assert credentials.logout(auth, registry.host)
        with pytest.raises(AuthError):
            RegistryClient(registry.host, transport).tags("team/app")


def test_skopeo_reads_our_login_file(layout: str, tmp_path: Path) -> None:
    with Registry(str(tmp_path), users=("me", "secret")) as registry:
        registry.push_layout(layout, "team/app:1")
        auth = str(tmp_path / "auth.json")
        credentials.login(Transport(timeout=10), auth, registry.host, "me", "secret")
        registry.users = None
        shown = json.loads(registry.skopeo("inspect", "--authfile", auth, "docker://%s/team/app:1" % registry.host))
        assert shown["Digest"] == IMAGE.top


def test_a_registry_that_restarts_in_mid_pull_is_waited_for(tmp_path: Path) -> None:
    image = build_image([layer({"a%d" % n: os.urandom(8 << 20)}) for n in range(4)])
    paths = Paths(str(tmp_path / "state"), str(tmp_path / "run"))
    Store.open(paths).close()
    with Registry(str(tmp_path)) as registry:
        push(image, registry.url, "team/app", "1")
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with Store.open(paths) as store:
                    status = int(pull(store, "%s/team/app:1" % registry.host).image.id != image.id)
            finally:
                os._exit(status)
        for _n in range(3):
            time.sleep(0.08)
            registry.stop(kill=True)
            registry.start()
        assert os.waitpid(pid, 0)[1] == 0


def test_memory_stays_below_64_mib_whatever_the_layer_size(tmp_path: Path) -> None:
    part = os.urandom(1 << 20)
    big = layer({"a%d" % n: part * 64 for n in range(5)})
    image = build_image([big, layer({"b": part * 64})], compress=False)
    del big
    paths = Paths(str(tmp_path / "state"), str(tmp_path / "run"))
    Store.open(paths).close()
    with Registry(str(tmp_path)) as registry:
        push(image, registry.url, "team/app", "1")
        name = "%s/team/app:1" % registry.host
        code = (
            "import sys; sys.path[:0] = sys.argv[1:2]\n"
            "from module_utils._engine.images import pull, reference\n"
            "from module_utils._engine.kernel.syscalls import Kernel\n"
            "from module_utils._engine.paths import Paths\n"
            "from module_utils._engine.registry.transport import Transport\n"
            "from module_utils._engine.store.state import Store\n"
            "with Store.open(Paths(*sys.argv[2:4])) as store:\n"
            "    pull.pull(store, Kernel(), reference.parse(sys.argv[4]), transport=Transport(timeout=30))\n"
            "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
        )
        plugins = next(path for path in sys.path if os.path.isdir(path + "/module_utils/_engine"))
        argv = [sys.executable, "-c", code, plugins, paths.state, paths.run, name]
        done = subprocess.run(argv, check=True, capture_output=True)
        assert int(done.stdout) < 64 * 1024, "%s KiB" % done.stdout.decode().strip()


def test_killed_at_any_moment_the_next_pull_completes(tmp_path: Path) -> None:
    image = build_image([layer({"a%d" % n: os.urandom(4 << 20)}) for n in range(3)])
    paths = Paths(str(tmp_path / "state"), str(tmp_path / "run"))
    Store.open(paths).close()
    with Registry(str(tmp_path)) as registry:
        push(image, registry.url, "team/app", "1")
        name = "%s/team/app:1" % registry.host
        for delay in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
            pid = os.fork()
            if pid == 0:
                try:
                    with Store.open(paths) as store:
                        pull(store, name)
                finally:
                    os._exit(0)
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        with Store.open(paths) as store:
            assert pull(store, name).image.id == image.id
            for one in store.images.list()[0].layers:
                assert os.path.isdir(store.paths.layer(one.chain_id))


def test_an_unknown_host_and_a_closed_port_are_told_in_words(store: Store) -> None:
    with pytest.raises(RegistryError, match="refused"):
        pull(store, "127.0.0.1:1/x", Transport(timeout=0.3))


def test_nothing_is_leaked(store: Store, layout: str, tmp_path: Path) -> None:
    with Registry(str(tmp_path)) as registry:
        registry.push_layout(layout, "team/app:1")
        transport = Transport(timeout=10)
        pull(store, "%s/team/app:1" % registry.host, transport)
        transport.close()
        before = len(os.listdir("/proc/self/fd"))
        store.images.remove(IMAGE.id)
        store.collect()
        pull(store, "%s/team/app:1" % registry.host, transport)
        transport.close()
        assert len(os.listdir("/proc/self/fd")) <= before


def test_a_full_disk_is_told_and_the_next_pull_completes(tmp_path: Path) -> None:
    image = build_image([layer({"a": os.urandom(3 << 20)}), layer({"b": os.urandom(3 << 20)})])
    state = tmp_path / "small"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(state)], check=True)
    try:
        with Registry(str(tmp_path)) as registry:
            push(image, registry.url, "team/app", "1")
            name = "%s/team/app:1" % registry.host
            with Store.open(Paths(str(state / "state"), str(tmp_path / "run"))) as store:
                with pytest.raises(DiskFull, match="space"):
                    pull(store, name)
                assert store.images.list() == []
                subprocess.run(["mount", "-o", "remount,size=64m", str(state)], check=True)
                assert pull(store, name).image.id == image.id
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


def test_a_pull_in_a_process_of_its_own_hands_its_failure_over(store: Store, layout: str, tmp_path: Path) -> None:
    with Registry(str(tmp_path)) as registry:
        registry.push_layout(layout, "team/app:1")

        def work(tag: str) -> str:
            with Store.open(store.paths) as own:
                return pull(own, "%s/team/app:%s" % (registry.host, tag)).image.id

        assert process.isolated(lambda: work("1")) == IMAGE.id
        assert store.images.get(IMAGE.id) is not None
        with pytest.raises(NotFound, match="team/app:2 does not exist"):
            process.isolated(lambda: work("2"))
