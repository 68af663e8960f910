# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""certs.d: each registry's own authorities and client certificates, and nobody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fake_registry import FakeRegistry
from helpers.registry import make_certificates
from module_utils._engine.errors import UsageError
from module_utils._engine.registry import certs
from module_utils._engine.registry.client import RegistryClient
from module_utils._engine.registry.transport import Broken, Transport

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is needed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    make_certificates(str(directory))
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", *key, "-subj", "/CN=me", "-keyout", "client.key", "-out", "client.csr"],
        ["x509", "-req", "-in", "client.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "me.crt"],
        ["ec", "-in", "client.key", "-aes128", "-passout", "pass:x", "-out", "locked.key"],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True, cwd=directory)
    return directory


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    found = (tmp_path / "containers", tmp_path / "docker")
    monkeypatch.setattr(certs, "DIRECTORIES", tuple(map(str, found)))
    return found


@pytest.fixture
def registry(made: Path) -> Iterator[FakeRegistry]:
    with FakeRegistry(tls=str(made), clients=str(made / "ca.crt")) as registry:
        yield registry


def put(base: Path, registry: FakeRegistry, **files: Path) -> None:
    directory = base / registry.host
    directory.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        shutil.copy(source, directory / name.replace("_", "."))


def ping(registry: FakeRegistry) -> str:
    return str(RegistryClient(registry.host, Transport(timeout=5, sleep=lambda _s: None)).ping()["url"])


@pytest.mark.parametrize("number", [0, 1])
def test_a_registry_that_wants_a_certificate_gets_its_own(
    bases: tuple[Path, Path], made: Path, registry: FakeRegistry, number: int
) -> None:
    with pytest.raises(Broken):
        ping(registry)
    put(bases[number], registry, ca_crt=made / "ca.crt", me_cert=made / "me.crt", me_key=made / "client.key")
    assert ping(registry) == registry.url
    with FakeRegistry(tls=str(made), clients=str(made / "ca.crt")) as other, pytest.raises(Broken):
        ping(other)


def test_an_authority_makes_a_loopback_registry_verified(bases: tuple[Path, Path], made: Path, tmp_path: Path) -> None:
    make_certificates(str(tmp_path / "stranger"))
    with FakeRegistry(tls=str(made)) as registry:
        assert ping(registry)  # as Docker has it: loopback is not verified
        put(bases[0], registry, ca_crt=tmp_path / "stranger/ca.crt")
        with pytest.raises(Broken, match="certificate cannot be verified"):
            ping(registry)
        put(bases[0], registry, ca_crt=made / "ca.crt")
        assert ping(registry)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"me.cert": "me.crt"}, r"me\.cert has no key me\.key"),
        ({"me.key": "client.key"}, r"me\.key has no certificate me\.cert"),
        ({"me.cert": "me.crt", "me.key": "server.key"}, r"me\.cert cannot be used"),
        ({"me.cert": "me.crt", "me.key": "locked.key"}, r"me\.cert cannot be used.*encrypted|me\.cert cannot be used"),
        ({"ca.crt": "client.csr"}, r"ca\.crt cannot be used"),
    ],
)
def test_what_is_wrong_in_a_directory_is_told(
    bases: tuple[Path, Path], made: Path, registry: FakeRegistry, files: dict[str, str], words: str
) -> None:
    directory = bases[0] / registry.host
    directory.mkdir(parents=True)
    for name, source in files.items():
        shutil.copy(made / source, directory / name)
    with pytest.raises(UsageError, match=words) as caught:
        ping(registry)
    assert caught.value.path == str(directory)


def test_names_of_directories(bases: tuple[Path, Path]) -> None:
    for name in ("r.example.com", "r.example.com:5000", "docker.io", "[::1]:443"):
        os.makedirs(bases[1] / name)
    for origin, name in (
        (("https", "r.example.com", 443), "r.example.com"),
        (("https", "r.example.com", 5000), "r.example.com:5000"),
        (("https", "registry-1.docker.io", 443), "docker.io"),
        (("https", "::1", 443), "[::1]:443"),
    ):
        assert certs.directory_for(*origin) == str(bases[1] / name)
    assert not certs.directory_for("http", "r.example.com", 5000) and not certs.directory_for("https", "x", 443)
