# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine arrives with the first task, once, on every way that Ansible runs modules."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from helpers.target import TARGET

from .conftest import Controller, Engine, Sshd

pytestmark = pytest.mark.root

INFO = {"name": "info", "wharf.engine.host_info": {"query": "engine"}}
VOLUME = {"name": "volume", "wharf.engine.volume": {"name": "data"}}
LIST = {"name": "list", "wharf.engine.volume_info": {"query": "[].Name"}}


@pytest.fixture(params=["pipelining", "no pipelining"])
def pipelining(request: pytest.FixtureRequest, controller: Controller) -> None:
    controller.env["ANSIBLE_PIPELINING"] = "1" if request.param == "pipelining" else "0"


def test_the_first_task_brings_the_engine_and_later_ones_find_it(
    controller: Controller, engine: Engine, pipelining: None
) -> None:
    first = controller.play([VOLUME, {**VOLUME, "name": "again"}, LIST])
    assert first.code == 0, first.output
    assert first.one("volume")["changed"] and not first.one("again")["changed"]
    assert first.one("list")["volumes"] == ["data"]
    assert first.transfers == 1
    second = controller.play([LIST])
    assert second.code == 0 and second.transfers == 0
    assert len(engine.bundles) == 1


@pytest.mark.near("an sshd and a user of the test's own")
def test_over_ssh_as_a_user_with_sudo(controller: Controller, engine: Engine, sshd: Sshd, pipelining: None) -> None:
    result = controller.play([VOLUME, {**VOLUME, "name": "again"}], hosts={"far": sshd.variables}, become=True)
    assert result.code == 0, result.output
    assert result.one("volume")["changed"] and not result.one("again")["changed"]
    assert result.transfers == 1 and len(engine.bundles) == 1
    assert os.stat(engine.state + "/engine").st_uid == 0
    assert not os.listdir(os.path.expanduser("~%s/.ansible/tmp" % sshd.user))


@pytest.mark.near("an sshd and a user of the test's own")
def test_without_root_the_task_says_what_to_do(controller: Controller, engine: Engine, sshd: Sshd) -> None:
    result = controller.play([INFO], hosts={"far": sshd.variables})
    answer = result.one("info")
    assert result.code == 2 and "must run as root" in answer["msg"]
    assert answer["error"]["kind"] == "permission" and "become: true" in answer["error"]["hint"]
    assert "Traceback" not in result.output and not engine.bundles


@pytest.mark.parametrize("how", ["local", pytest.param("ssh", marks=pytest.mark.near("an sshd of the test's own"))])
def test_an_asynchronous_task_can_be_the_first(
    controller: Controller, engine: Engine, how: str, request: pytest.FixtureRequest
) -> None:
    hosts = {"far": request.getfixturevalue("sshd").variables} if how == "ssh" else None
    result = controller.play(
        [
            {**VOLUME, "async": 60, "poll": 1},
            {**VOLUME, "name": "left behind", "wharf.engine.volume": {"name": "more"}, "async": 60, "poll": 0}
            | {"register": "job"},
            {
                "name": "waited for",
                "ansible.builtin.async_status": {"jid": "{{ job.ansible_job_id }}"},
                "register": "done",
                "until": "done.finished",
                "retries": 100,
                "delay": 0.2,
            },
            LIST,
        ],
        hosts=hosts,
        become=True,
    )
    assert result.code == 0, result.output
    assert result.one("volume")["changed"]
    assert result.one("waited for")["volume"]["Name"] == "more"
    assert sorted(result.one("list")["volumes"]) == ["data", "more"]
    assert len(engine.bundles) == 1


def test_a_loop_brings_it_once(controller: Controller) -> None:
    task = {"name": "loop", "wharf.engine.volume": {"name": "v{{ item }}"}, "loop": [1, 2, 3]}
    task["wharf.engine.volume"] = {"name": "vol{{ item }}"}
    result = controller.play([task])
    assert result.code == 0, result.output
    assert [item["changed"] for item in result.one("loop")["results"]] == [True, True, True]
    assert result.transfers == 1


def test_check_mode_leaves_nothing_and_diff_says_what_would_be(controller: Controller, engine: Engine) -> None:
    result = controller.play([VOLUME], "--check", "--diff")
    answer = result.one("volume")
    assert result.code == 0, result.output
    assert answer["changed"] and answer["actions"][0]["how"] == "create" and "diff" in answer
    assert not engine.bundles
    # Not even directories, where there were none.
    assert not TARGET.call("exists", engine.state) and not TARGET.call("exists", engine.run)


def test_many_hosts_at_once_that_are_one(controller: Controller, engine: Engine) -> None:
    hosts = {"name%d" % n: TARGET.variables for n in range(6)}
    result = controller.play([INFO], "--forks", "6", hosts=hosts, **TARGET.play)
    assert result.code == 0, result.output
    assert len(result.lines) == 6 and {line["event"] for line in result.lines} == {"ok"}
    assert len(engine.bundles) == 1
    rest = set(TARGET.call("names", engine.state + "/engine")) - {*engine.bundles, "current", ".install"}
    assert not rest


@pytest.mark.near("a connection plugin that changes what the local one sends")
def test_a_bundle_changed_in_transit_is_refused(controller: Controller, engine: Engine) -> None:
    hosts = {"mallory": {"ansible_connection": "tampering", "ansible_python_interpreter": sys.executable}}
    result = controller.play([INFO], hosts=hosts)
    answer = result.one("info")
    assert result.code == 2 and answer["error"]["kind"] == "integrity"
    assert "not the one the controller sent" in answer["msg"] and not engine.bundles


def test_another_version_replaces_the_bundle(controller: Controller, engine: Engine) -> None:
    assert controller.play([INFO]).code == 0
    before = engine.bundles
    extra = controller.collections / "ansible_collections/wharf/engine/plugins/module_utils/_engine/newer.py"
    extra.write_text("# another version\n")
    try:
        result = controller.play([INFO])
    finally:
        extra.unlink()
    assert result.code == 0 and result.transfers == 1
    assert len(engine.bundles) == 1 and engine.bundles != before


def test_a_failure_has_a_sentence_and_fields_and_no_traceback(controller: Controller) -> None:
    result = controller.play([{"name": "wrong", "wharf.engine.volume": {"name": "no/slashes"}}])
    answer = result.one("wrong")
    assert result.code == 2 and answer["error"]["kind"] == "usage" and answer["error"]["path"] == "name"
    assert "no/slashes" in answer["msg"] and "Traceback" not in result.output


def test_private_arguments_stay_private(controller: Controller) -> None:
    result = controller.play([VOLUME], "-vvv")
    arguments = result.one("volume")["invocation"]["module_args"]
    assert arguments["name"] == "data" and not [name for name in arguments if name.startswith("_")]


@pytest.mark.near("its Pythons")
@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_every_supported_target_python(
    controller: Controller, engine: Engine, pythons: dict[str, str], version: str
) -> None:
    if version not in pythons:
        pytest.skip("no Python %s on this machine (looked in /usr/bin, /usr/local/bin and pyenv)" % version)
    hosts = {"target": {"ansible_connection": "local", "ansible_python_interpreter": pythons[version]}}
    facts = {"name": "info", "wharf.engine.host_info": {"query": "python.version"}}
    result = controller.play([facts, VOLUME, LIST], hosts=hosts)
    assert result.code == 0, result.output
    assert result.one("info")["host"].startswith(version + ".")
    root = engine.state + "/engine/" + engine.bundles[0]
    tag = "cpython-" + version.replace(".", "")
    assert os.path.isfile("%s/wharf_runtime/_engine/__pycache__/entry.%s.pyc" % (root, tag))


@pytest.mark.near("its Pythons")
def test_python_3_8_gets_a_sentence(controller: Controller, engine: Engine, pythons: dict[str, str]) -> None:
    if "3.8" not in pythons:
        pytest.skip("no Python 3.8 on this machine (looked in /usr/bin, /usr/local/bin and pyenv)")
    hosts = {"old": {"ansible_connection": "local", "ansible_python_interpreter": pythons["3.8"]}}
    result = controller.play([INFO], hosts=hosts)
    answer = result.one("info")
    assert result.code == 2 and "needs Python 3.9 or newer on the target" in answer["msg"], result.output
    assert answer["error"]["kind"] == "unsupported" and "Traceback" not in result.output
    assert not engine.bundles


@pytest.mark.near("nothing reaches a target")
def test_missing_libraries_on_the_controller_are_named(controller: Controller, engine: Engine) -> None:
    requirements = controller.collections / "ansible_collections/wharf/engine/requirements.txt"
    text = requirements.read_text()
    requirements.write_text(text.replace("urllib3==", "urllib3==0.") + "not-there==1.0\n")
    try:
        result = controller.play([INFO])
    finally:
        requirements.write_text(text)
    answer: dict[str, Any] = result.one("info")
    assert result.code == 2 and "not-there is not installed" in answer["msg"] and "pip install -r" in answer["msg"]


def test_a_task_leaves_no_process_that_holds_it(controller: Controller, engine: Engine) -> None:
    result = controller.play([VOLUME])
    assert result.code == 0
    assert not [line for line in TARGET.sh("ps -eo args").splitlines() if engine.state in line]
