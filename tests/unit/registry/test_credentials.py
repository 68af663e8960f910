# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Login files: Docker's format, private, replaced in one step, foreign keys kept."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_registry import FakeRegistry
from module_utils._engine.errors import AuthError, RegistryError, StateError, TimedOut, UsageError
from module_utils._engine.registry import helpers
from module_utils._engine.registry.credentials import Credential, login, logout, lookup, stored
from module_utils._engine.registry.transport import Transport


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def auth(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "auth.json")


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(path: Any, document: Any) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(path).write_text(json.dumps(document))


def transport() -> Transport:
    return Transport(timeout=5, sleep=lambda _s: None)


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_login_is_verified_stored_and_idempotent(auth: str, scheme: str) -> None:
    with FakeRegistry() as registry:
        registry.auth = (scheme, "me", "pass:wörd")
        write(auth, {"auths": {"other": {"auth": b64("a:b"), "email": "x"}}, "credsHelperFuture": 1})
        with pytest.raises(AuthError, match="refused"):
            login(transport(), auth, registry.host, "me", "wrong")
        assert registry.host not in json.loads(Path(auth).read_text())["auths"]
        assert login(transport(), auth, registry.host, "me", "pass:wörd", check=True)
        assert registry.host not in json.loads(Path(auth).read_text())["auths"]
        assert login(transport(), auth, registry.host, "me", "pass:wörd")
        count = len(registry.requests)
        assert not login(transport(), auth, registry.host, "me", "pass:wörd")
        assert len(registry.requests) == count
        assert not login(transport(), auth, registry.host, "me", "pass:wörd", force=True)
        assert len(registry.requests) > count
        document = json.loads(Path(auth).read_text())
        assert document["credsHelperFuture"] == 1 and document["auths"]["other"] == {"auth": b64("a:b"), "email": "x"}
        assert document["auths"][registry.host] == {"auth": b64("me:pass:wörd")}
        assert os.stat(auth).st_mode & 0o777 == 0o600
        assert lookup(auth, registry.host) == Credential("me", "pass:wörd", source=auth)
        assert logout(auth, registry.host, check=True) and logout(auth, registry.host)
        assert not logout(auth, registry.host)
        assert lookup(auth, registry.host) is None and lookup(auth, "other") is not None


def test_an_open_registry_takes_any_login_as_docker_has_it(auth: str) -> None:
    with FakeRegistry() as registry:
        assert login(transport(), auth, registry.host, "me", "x")


def test_a_registry_that_cannot_be_asked_stores_nothing(auth: str) -> None:
    with pytest.raises(RegistryError):
        login(Transport(timeout=0.2), auth, "127.0.0.1:1", "me", "x")
    assert not os.path.exists(auth)


def test_the_hub_has_dockers_key_and_all_its_names(auth: str) -> None:
    write(auth, {"auths": {"https://index.docker.io/v1/": {"auth": b64("me:x")}}})
    for host in ("docker.io", "index.docker.io"):
        found = lookup(auth, host, "library/busybox")
        assert found is not None and found.username == "me"
    assert logout(auth, "docker.io")


def test_the_most_specific_key_wins_and_old_keys_are_understood(auth: str) -> None:
    document = {
        "auths": {
            "r.example": {"auth": b64("host:x")},
            "r.example/team": {"auth": b64("team:x")},
            "https://old.example/v1/": {"username": "old", "password": "x"},
            "tok.example": {"identitytoken": "refresh"},
            "bad.example": {"auth": "%%%"},
            "odd.example": 5,
        }
    }
    write(auth, document)
    assert lookup(auth, "r.example", "team/app").username == "team"  # type: ignore[union-attr]
    assert lookup(auth, "r.example", "other/app").username == "host"  # type: ignore[union-attr]
    assert lookup(auth, "old.example", "x").username == "old"  # type: ignore[union-attr]
    assert lookup(auth, "tok.example").identity_token == "refresh"  # type: ignore[union-attr]
    for host in ("bad.example", "odd.example", "r.example:5000", "example"):
        assert lookup(auth, host) is None


def test_foreign_files_are_read_after_ours_and_may_be_broken(auth: str, home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {"r": {"auth": b64("docker:x")}, "s": {"auth": b64("docker:x")}}})
    assert lookup(auth, "r").username == "docker"  # type: ignore[union-attr]
    write(home / ".config/containers/auth.json", {"auths": {"r": {"auth": b64("podman:x")}}})
    assert lookup(auth, "r").username == "podman"  # type: ignore[union-attr]
    write(auth, {"auths": {"r": {"auth": b64("ours:x")}}})
    assert lookup(auth, "r").username == "ours"  # type: ignore[union-attr]
    (home / ".config/containers/auth.json").write_text("{")
    assert lookup(auth, "s").username == "docker"  # type: ignore[union-attr]


def test_a_damaged_own_file_is_an_error_and_is_kept(auth: str) -> None:
    for text in ("{", "[]", '{"auths": 5}'):
        os.makedirs(os.path.dirname(auth), exist_ok=True)
        Path(auth).write_text(text)
        with pytest.raises(StateError):
            lookup(auth, "r")
        with FakeRegistry() as registry, pytest.raises(StateError):
            login(transport(), auth, registry.host, "a", "b")
        assert Path(auth).read_text() == text


def test_a_file_that_cannot_be_read_is_an_error_when_it_is_ours_and_passed_over_when_not(auth: str, home: Path) -> None:
    """A directory in its place, or a link that leads in circles, is what not even root can read."""
    write(home / ".docker/config.json", {"auths": {"r": {"auth": b64("docker:x")}}})
    os.makedirs(home / ".config/containers/auth.json")
    assert lookup(auth, "r").username == "docker"  # type: ignore[union-attr]
    os.makedirs(os.path.dirname(auth), exist_ok=True)
    os.symlink(os.path.basename(auth), auth)
    with pytest.raises(StateError, match="Cannot read %s: Too many levels" % auth) as caught:
        lookup(auth, "r")
    assert caught.value.path == auth and caught.value.errno == 40
    with FakeRegistry() as registry, pytest.raises(StateError, match="Cannot read"):
        login(transport(), auth, registry.host, "a", "b")
    assert os.path.islink(auth)


def test_a_helper_is_asked_and_its_name_is_no_path(auth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from module_utils._engine import process

    asked = []

    def run(argv: list[str], **options: Any) -> process.Completed:
        asked.append((argv, options["stdin"]))
        if argv[0].endswith("empty"):
            return process.Completed(1, b"credentials not found in native keychain", b"")
        return process.Completed(0, b'{"ServerURL":"r","Username":"<token>","Secret":"t"}', b"")

    monkeypatch.setattr(process, "run", run)
    write(
        auth, {"credHelpers": {"r": "vault", "s": "../../bin/sh", "t": "empty"}, "auths": {"t": {"auth": b64("a:b")}}}
    )
    assert lookup(auth, "r").identity_token == "t"  # type: ignore[union-attr]
    assert asked == [(["docker-credential-vault", "get"], b"r")]
    assert lookup(auth, "s") is None and len(asked) == 1
    assert lookup(auth, "t").username == "a"  # type: ignore[union-attr]


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str) -> Any:
    """``helper(script)``: a program docker-credential-x on the path, which the login file names for everything."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", "%s:%s" % (directory, os.environ["PATH"]))

    def make(script: str) -> None:
        program = directory / "docker-credential-x"
        program.write_text("#!/bin/sh\n" + script)
        program.chmod(0o755)
        write(auth, {"credsStore": "x", "auths": {"known": {"auth": b64("a:b")}}})

    return make


def test_a_real_helper_gets_the_host_and_the_tasks_environment(
    auth: str, helper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD", "secret of the task")
    helper('read host; test "$1" = get && printf \'{"Username":"%s","Secret":"%s"}\' "$host" "$CLOUD"')
    found = lookup(auth, "r.example.com:5000")
    assert found is not None and (found.username, found.password) == ("r.example.com:5000", "secret of the task")
    assert found.source == "docker-credential-x (%s)" % auth


def test_a_helper_that_hangs_is_ended_and_named(auth: str, helper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "TIMEOUT", 0.3)
    helper("exec sleep 3600")
    with pytest.raises(TimedOut, match=r"docker-credential-x .* did not answer within 0\.3 seconds"):
        lookup(auth, "r")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo garbage with s3cret", "did not answer with a user name and a secret"),
        ("printf '[]'", "did not answer with a user name and a secret"),
        ('printf \'{"Username": 1, "Secret": "s3cret"}\'', "did not answer with a user name and a secret"),
        ("true", "did not answer with a user name and a secret"),
        ("echo no network; exit 3", "failed for r with exit code 3: no network"),
        ("echo s >&2; kill -9 $$", "failed for r with exit code -9"),
    ],
)
def test_a_helper_that_fails_is_an_error_with_its_words(auth: str, helper: Any, script: str, words: str) -> None:
    helper(script)
    with pytest.raises(AuthError, match=words) as caught:
        lookup(auth, "r")
    assert "s3cret" not in str(caught.value.as_dict()) and "s3cret" not in caught.value.msg


@pytest.mark.parametrize("script", ["echo credentials not found in native keychain; exit 1", 'echo "{"; exec /nowhere'])
def test_a_helper_with_nothing_is_passed_over(auth: str, helper: Any, script: str) -> None:
    if "nowhere" in script:
        write(auth, {"credsStore": "not-installed", "auths": {"known": {"auth": b64("a:b")}}})
    else:
        helper(script)
    assert lookup(auth, "r") is None
    assert lookup(auth, "known").username == "a"  # type: ignore[union-attr]


def test_logging_in_does_not_ask_the_helper(auth: str, helper: Any, home: Path) -> None:
    helper("exit 3")
    os.makedirs(home / ".docker")
    os.rename(auth, home / ".docker/config.json")
    with FakeRegistry() as registry:
        registry.auth = ("basic", "me", "x")
        assert stored(auth, registry.host) is None
        assert login(transport(), auth, registry.host, "me", "x")
        assert lookup(auth, registry.host) == Credential("me", "x", source=auth) == stored(auth, registry.host)


def test_names_that_basic_cannot_carry_are_refused(auth: str) -> None:
    for name, password in (("", "x"), ("a:b", "x"), ("a\n", "x")):
        with pytest.raises(UsageError):
            login(transport(), auth, "r", name, password)


def test_a_credential_does_not_show_its_secret() -> None:
    shown = repr(Credential("me", "secret", "identity", "token", "file"))
    assert not any(word in shown for word in ("secret", "identity", "token"))


def test_two_logins_at_once_both_stay(auth: str) -> None:
    import threading

    with FakeRegistry() as one, FakeRegistry() as two:
        threads = [threading.Thread(target=login, args=(transport(), auth, r.host, "a", "b")) for r in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(json.loads(Path(auth).read_text())["auths"]) == {one.host, two.host}
