# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which AppArmor profile a container gets on which host."""

from __future__ import annotations

import pytest
from module_utils._engine.errors import KernelError, NotFound, Unsupported
from module_utils._engine.kernel import apparmor
from module_utils._engine.process import Completed
from module_utils._engine.runtime import spec


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A host with AppArmor on; ``loaded`` are its profiles, ``runs`` what its parser was given."""

    class Host:
        def __init__(self):
            self.loaded, self.runs = ["other", "with space"], []
            self.answer = Completed(0, b"", b"")

    state = Host()

    def run(_argv, *, stdin, timeout):
        state.runs.append(stdin)
        if not state.answer.returncode:
            state.loaded.append(apparmor.DEFAULT)
        return state.answer

    monkeypatch.setattr(apparmor, "is_enabled", lambda: True)
    monkeypatch.setattr(apparmor, "is_loaded", lambda name: name in state.loaded)
    monkeypatch.setattr(apparmor, "parser", lambda: "/sbin/apparmor_parser")
    monkeypatch.setattr(apparmor, "STAMP", str(tmp_path / "stamp"))
    monkeypatch.setattr("module_utils._engine.process.run", run)
    return state


def test_without_the_module_nothing_is_applied_and_nothing_promised(monkeypatch):
    monkeypatch.setattr(apparmor, "is_enabled", lambda: False)
    assert apparmor.choose({}) == ""
    assert apparmor.choose({"apparmorProfile": "unconfined"}) == ""
    with pytest.raises(Unsupported, match="not enabled"):
        apparmor.choose({"apparmorProfile": "mine"})


def test_ours_is_loaded_once_and_again_when_its_text_changes(host, monkeypatch):
    assert [apparmor.choose({}) for _n in range(3)] == [apparmor.DEFAULT] * 3
    assert len(host.runs) == 1 and host.runs[0].decode() == apparmor.text()
    monkeypatch.setattr(apparmor, "TEXT", apparmor.TEXT + "# new\n")
    apparmor.choose({})
    assert len(host.runs) == 2


def test_a_reboot_loads_it_again(host):
    apparmor.choose({})
    host.loaded.remove(apparmor.DEFAULT)  # even if the stamp were still there
    assert apparmor.choose({}) == apparmor.DEFAULT
    assert len(host.runs) == 2


def test_without_the_parser_containers_start_without_a_profile(host, monkeypatch):
    monkeypatch.setattr(apparmor, "parser", lambda: None)
    assert apparmor.choose({}) == ""


def test_a_profile_that_does_not_compile_is_an_error_not_a_hole(host):
    host.answer = Completed(1, b"", b"syntax error")
    with pytest.raises(KernelError, match="syntax error"):
        apparmor.choose({})


def test_a_profile_that_was_asked_for_must_be_there(host):
    assert apparmor.choose({"apparmorProfile": "other"}) == "other"
    with pytest.raises(NotFound, match="nobody"):
        apparmor.choose({"apparmorProfile": "nobody"})


@pytest.mark.parametrize(
    ("asked", "profile"),
    [
        ({}, ""),
        ({"security_opts": ["apparmor=mine"]}, "mine"),
        ({"security_opts": ["apparmor:unconfined"]}, "unconfined"),
        ({"privileged": True}, "unconfined"),
        ({"privileged": True, "security_opts": ["apparmor=mine"]}, "mine"),
    ],
)
def test_what_a_task_asks_for(asked, profile):
    assert spec.apparmor_profile(asked) == profile


def test_names_are_read_whole(tmp_path):
    listing = tmp_path / "profiles"
    listing.write_text("a (enforce)\nwith space (complain)\nwharf-default-2 (enforce)\n")
    assert apparmor.is_loaded("with space", str(listing))
    assert not apparmor.is_loaded("wharf-default", str(listing))
    assert not apparmor.is_loaded("x", str(tmp_path / "absent"))
