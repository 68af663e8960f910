# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``security_opts``, capabilities and device rules: what the kernel does for a container's processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP, hold, mounts, status
from module_utils._engine.errors import NotFound, UsageError
from module_utils._engine.kernel import apparmor, seccomp
from module_utils._engine.kernel.seccomp import profile as profiles
from module_utils._engine.kernel.syscalls import Kernel


def refusing(*names: str, **more: Any) -> dict[str, Any]:
    rule = {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": 1, **more}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


def filters(engine: Engine, name: str) -> tuple[str, str]:
    return status(engine, name, "Seccomp"), status(engine, name, "NoNewPrivs")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["no-new-privileges"], ["seccomp=unconfined"]),
        (["no-new-privileges:true", "seccomp=unconfined"], ["seccomp=unconfined"]),
    ],
)
def test_filter_and_no_new_privileges_follow_the_task(shared: Engine, before: list[str], after: list[str]) -> None:
    hold(shared, "security_opts", before, after, "replace", filters)


def test_system_paths_are_uncovered_on_demand(shared: Engine) -> None:
    def covered(engine: Engine, name: str) -> list[list[str]]:
        return [mounts(engine, name, path) for path in ("/proc/sys", "/proc/keys", "/sys/firmware")]

    both = ["systempaths=unconfined"], ["systempaths=unconfined", "no-new-privileges"]
    hold(shared, "security_opts", *both, "replace", lambda e, n: (covered(e, n), filters(e, n)))


def test_what_means_the_default_is_no_difference(shared: Engine) -> None:
    shared.container("plain", command=SLEEP)
    for options in (["no-new-privileges=false"], ["label=disable"], ["seccomp=builtin"], ["label:type:x"], []):
        result = shared.container("plain", command=SLEEP, security_opts=options)
        assert not result["changed"]
        assert bool(result.get("warnings")) is (options == ["label:type:x"])


@pytest.mark.parametrize(
    "options", [["seccomp=unconfined", "seccomp=builtin"], ["no-new-privileges", "no-new-privileges:false"]]
)
def test_two_that_contradict_each_other_are_refused(shared: Engine, options: list[str]) -> None:
    with pytest.raises(UsageError, match="something else"):
        shared.container("refused", command=SLEEP, security_opts=options)


@pytest.mark.parametrize("form", ["path", "json", "colon"])
def test_a_custom_profile_is_kept_by_the_kernel_however_it_is_given(shared: Engine, tmp_path: Path, form: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(refusing("mkdir", "mkdirat")))
    option = {"path": "seccomp=%s" % path, "json": "seccomp=" + path.read_text(), "colon": "seccomp:%s" % path}[form]
    task: dict[str, Any] = {"command": SLEEP, "security_opts": [option]}
    shared.container("custom-" + form, **task)
    result = shared.exec("custom-" + form, "mkdir", "/tmp/x")
    assert result["rc"] and "Operation not permitted" in result["stderr"]
    assert shared.exec("custom-" + form, "touch", "/tmp/x")["rc"] == 0
    if form == "path":
        assert not shared.container("custom-" + form, **task)["changed"]
        path.write_text(json.dumps(refusing("mknod", "mknodat")))
        assert shared.container("custom-" + form, **task)["changed"]  # another profile at the same path
        assert shared.exec("custom-" + form, "mkdir", "/tmp/x")["rc"] == 0
        path.unlink()
        shared.run("container", name="custom-path", state="stopped", force_kill=True)
        shared.run("container", name="custom-path", state="started")  # the profile is stored, not its path


def test_rules_may_depend_on_arguments_capabilities_and_architecture(shared: Engine) -> None:
    kill = profiles.default_profile()
    kill["syscalls"].insert(
        0,
        {
            "names": ["kill"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 95,
            "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
        },
    )
    conditional = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
             "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_NET_ADMIN"]}},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["s390x"]}},
        ],
    }  # fmt: skip
    for name, caps in (("plain-caps", []), ("admin-caps", ["NET_ADMIN"])):
        option = "seccomp=" + json.dumps(conditional)
        shared.container(name, command=["sh", "-c", "trap '' USR1 USR2; sleep 1000"], security_opts=[option],
                         capabilities=caps)  # fmt: skip
        result = shared.exec(name, "kill", "-USR1", "1")
        assert result["rc"] and "not supported" in result["stderr"]
        assert shared.exec(name, "kill", "-USR2", "1")["rc"] == 0
        assert (shared.exec(name, "mkdir", "/tmp/made")["rc"] == 0) is bool(caps)
    assert shared.exec("admin-caps", "sh", "-c", "busybox rmdir /tmp/made")["rc"] == 0


CAPABILITIES = (
    ([], [], False),
    (["SYS_ADMIN"], [], True),
    (["ALL"], [], True),
    (["ALL"], ["SYS_ADMIN"], False),
    (["SYS_ADMIN"], ["ALL"], True),
)


@pytest.mark.parametrize(("add", "drop", "allowed"), CAPABILITIES)
def test_the_default_filter_opens_what_an_added_capability_is_for(
    shared: Engine, add: list[str], drop: list[str], allowed: bool
) -> None:
    """As in Docker: a capability without the calls it is for would be none."""
    shared.container("caps", command=SLEEP, capabilities=add, cap_drop=drop, security_opts=["apparmor=unconfined"])
    result = shared.exec("caps", "mount", "-t", "tmpfs", "none", "/tmp")
    assert (result["rc"] == 0) is allowed, result
    bounding = int(status(shared, "caps", "CapBnd").split()[1], 16)
    assert bool(bounding >> 21 & 1) is allowed
    shared.run("container", name="caps", state="absent", force_kill=True)


def test_proc_is_mounted_as_asked(shared: Engine) -> None:
    task: dict[str, Any] = {"command": SLEEP, "security_opts": ["proc-opts=hidepid=2"]}
    shared.container("hidden", **task)
    assert shared.exec("hidden", "ls", "/proc/1", user="1000")["rc"]
    assert shared.exec("hidden", "ls", "/proc/1")["rc"] == 0
    assert not shared.container("hidden", **task)["changed"]
    shared.container("hidden", command=SLEEP, security_opts=["proc-opts=subset=pid"])
    assert shared.exec("hidden", "ls", "/proc/meminfo")["rc"]


BAD = [
    ("nonsense", "not supported"),
    ("no-new-privileges=maybe", "neither true nor false"),
    ("seccomp=/nowhere.json", "cannot read the seccomp profile"),
    ("seccomp={\"defaultAction\": \"SCMP_ACT_NOTHING\"}", "security_opts"),
    ("seccomp=", "names no profile"),
    ("seccomp={", "security_opts"),
    ("systempaths=all", "systempaths=unconfined"),
    ("proc-opts=hidepid=9", "none of hidepid"),
    ("proc-opts=rw", "none of hidepid"),
    ("apparmor=", "names no AppArmor profile"),
    ("apparmor=a b", "names no AppArmor profile"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "words"), BAD)
def test_an_option_that_cannot_be_kept_is_refused_before_anything_changes(
    shared: Engine, option: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        shared.container("refused", command=SLEEP, security_opts=[option])
    assert not shared.run("container_info", name="refused")["exists"]


def test_a_profile_that_is_not_loaded_is_refused_by_name(shared: Engine) -> None:
    with pytest.raises((UsageError, NotFound), match="nobodys-profile"):
        shared.container("refused", command=SLEEP, security_opts=["apparmor=nobodys-profile"])
    shared.container("free", command=SLEEP, security_opts=["apparmor=unconfined"])
    assert not apparmor.is_enabled() or shared.sh("free", "cat /proc/self/attr/current").startswith("unconfined")


def test_the_filter_that_runs_is_the_one_the_rules_compile_to() -> None:
    """The same profile, compiled twice, is one program; another is another."""
    machine = Kernel().machine
    one = seccomp.filter_for(refusing("mkdir"), set(), machine)
    assert (
        one
        == seccomp.filter_for(refusing("mkdir"), set(), machine)
        != seccomp.filter_for(refusing("mknod"), set(), machine)
    )
