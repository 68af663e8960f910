# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the role ``registry`` makes beside a configuration: certificates and users, again only when they must be."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.registry import PROGRAM

SCRIPT = Path(__file__).parents[3] / "roles/registry/files/registry_files.py"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        shutil.which("openssl") is None or not os.path.exists(PROGRAM), reason="openssl, docker-registry"
    ),
]


def call(*arguments: str, stdin: str = "") -> Any:
    """As the role calls it: the text on the command line, no file on the target."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT.read_text(), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "tls").mkdir()
    return tmp_path


def certify(directory: Path, *names: str, days: int = 397, check: bool = False) -> Any:
    return call(*(["--check"] if check else []), "certificate", str(directory), str(days), *names)


def shown(path: Path, *what: str) -> str:
    return subprocess.run(
        ["openssl", "x509", "-in", str(path), "-noout", *what], capture_output=True, text=True, check=True
    ).stdout


def modes(directory: Path) -> dict[str, int]:
    return {str(one.relative_to(directory)): stat.S_IMODE(one.stat().st_mode) for one in directory.rglob("*.*")}


def test_a_certificate_is_made_once_for_the_names_asked_for(directory: Path) -> None:
    assert certify(directory, "a.test", "10.0.0.1", check=True)["changed"] and not list(directory.glob("ca.*"))
    assert certify(directory, "a.test", "10.0.0.1", "::1")["why"] == "ca.crt is missing"
    files = {path: path.read_bytes() for path in directory.rglob("*.*")}
    assert not certify(directory, "::1", "a.test", "10.0.0.1")["changed"]  # in any order
    assert {path: path.read_bytes() for path in directory.rglob("*.*")} == files
    assert modes(directory) == {"ca.crt": 0o644, "ca.key": 0o600, "tls/server.crt": 0o644, "tls/server.key": 0o640}
    names = shown(directory / "tls/server.crt", "-ext", "subjectAltName")
    assert "DNS:a.test" in names and "IP Address:10.0.0.1" in names


def test_other_names_need_another_certificate_by_the_same_authority(directory: Path) -> None:
    certify(directory, "a.test")
    authority, before = (directory / "ca.crt").read_bytes(), (directory / "tls/server.crt").read_bytes()
    planned = certify(directory, "a.test", "b.test", check=True)
    assert planned["changed"] and "DNS:b.test" in planned["why"]
    assert (directory / "tls/server.crt").read_bytes() == before
    certify(directory, "a.test", "b.test")
    assert (directory / "ca.crt").read_bytes() == authority
    assert "DNS:b.test" in shown(directory / "tls/server.crt", "-ext", "subjectAltName")


def test_a_certificate_that_ends_within_thirty_days_is_made_anew(directory: Path) -> None:
    certify(directory, "a.test", days=29)
    authority = (directory / "ca.crt").read_bytes()
    assert certify(directory, "a.test")["why"] == "tls/server.crt ends soon"
    assert not certify(directory, "a.test")["changed"] and (directory / "ca.crt").read_bytes() == authority


def test_a_certificate_of_another_authority_is_made_anew(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "tls").mkdir(parents=True)
    certify(other, "a.test")
    certify(directory, "a.test")
    shutil.copy(other / "tls/server.crt", directory / "tls/server.crt")
    assert certify(directory, "a.test")["why"] == "tls/server.crt is not by ca.crt"
    (directory / "tls/server.key").unlink()
    assert certify(directory, "a.test")["why"] == "tls/server.key is missing"


@pytest.mark.parametrize("name", ["a b", "a,DNS:evil.test", "a\nb", ""])
def test_a_name_that_is_none_is_refused_before_anything_is_made(directory: Path, name: str) -> None:
    with pytest.raises(RuntimeError, match="neither an address nor a host name"):
        certify(directory, "a.test", name)
    assert not list(directory.glob("ca.*"))


def users(path: Path, *names: dict[str, str], check: bool = False) -> Any:
    return call(*(["--check"] if check else []), "htpasswd", str(path), "root", stdin=json.dumps(names))


def test_users_are_hashed_with_bcrypt_and_a_right_hash_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    ann, bob = {"name": "ann", "password": "pass wörd"}, {"name": "bob", "password": "x" * 72}
    assert users(path, ann, check=True)["changed"] and not path.exists()
    assert users(path, ann, bob)["changed"]
    text = path.read_text()
    assert [line.partition(":")[0] for line in text.splitlines()] == ["ann", "bob"] and text.count("$2b$10$") == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not users(path, ann, bob)["changed"] and path.read_text() == text
    done = users(path, {**ann, "password": "another"})
    assert done["why"] == "set: ann; removed: bob"
    verified = subprocess.run(["htpasswd", "-vbB", str(path), "ann", "another"], capture_output=True, check=False)
    assert verified.returncode == 0
    path.chmod(0o644)
    assert users(path, {**ann, "password": "another"})["changed"] and stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_hash_can_be_given_instead_of_a_password(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    made = subprocess.run(
        ["htpasswd", "-nbB", "-C", "5", "ann", "secret"], capture_output=True, text=True, check=True
    ).stdout
    value = made.strip().partition(":")[2]
    assert users(path, {"name": "ann", "password_hash": value})["changed"]
    assert path.read_text() == "ann:%s\n" % value
    assert not users(path, {"name": "ann", "password_hash": value})["changed"]
    assert not users(path, {"name": "ann", "password": "secret"})["changed"]  # it is one of this password


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"name": "a:b", "password": "x"}, "is no user name"),
        ({"name": "", "password": "x"}, "is no user name"),
        ({"name": "a"}, "neither password nor password_hash"),
        ({"name": "a", "password": "x" * 73}, "longer than the 72 bytes"),
        ({"name": "a", "password_hash": "$apr1$x"}, "none of bcrypt"),
    ],
)
def test_what_the_registry_would_not_understand_is_refused_and_nothing_is_written(
    tmp_path: Path, user: dict[str, str], words: str
) -> None:
    path = tmp_path / "htpasswd"
    users(path, {"name": "ann", "password": "x"})
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=words) as caught:
        users(path, {"name": "ann", "password": "x"}, user)
    assert path.read_bytes() == before
    assert not user.get("password") or user["password"] == "x" or user["password"] not in str(caught.value)


def test_a_configuration_is_tried_by_the_registry_itself(tmp_path: Path) -> None:
    config = tmp_path / "config.yml"
    good: dict[str, Any] = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(tmp_path / "kept")}}}
    config.write_text(json.dumps(good))
    assert not call("trial", PROGRAM, str(config))["changed"]
    assert not (tmp_path / "kept").exists()  # it had a store of its own
    tls = {"http": {"tls": {"certificate": str(tmp_path / "none.crt"), "key": str(tmp_path / "none.key")}}}
    for bad, words in (
        ({**good, "storage": {**good["storage"], "nowhere": {}}}, "must provide exactly one storage type"),
        ({**good, "version": "7"}, "panic: runtime error"),  # its own way of saying no
        ({**good, **tls}, "no such file"),
    ):
        config.write_text(json.dumps(bad))
        with pytest.raises(RuntimeError, match="does not come up with this configuration") as caught:
            call("trial", PROGRAM, str(config))
        assert words in str(caught.value)
