# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restart policy, health, users, state: the parts of the runtime that are pure rules."""

from __future__ import annotations

import os

import pytest
from module_utils._engine.errors import StartError, UsageError
from module_utils._engine.kernel import procfs
from module_utils._engine.runtime import finalize, health, restart, statefile, users, wire


class Root:
    """``open_in_root`` below a directory, without the kernel's guarantees."""

    def open_in_root(self, rootfd, path, flags=os.O_PATH, mode=0):
        return os.open(path, flags, dir_fd=rootfd)


@pytest.fixture
def rootfs(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n# comment:x:1:1::/:\nbroken\nweb:x:33:34::/var/www:/bin/sh\n123:x:7:8::/n:\n"
        "huge:x:4294967296:0::/:\nneg:x:-1:0::/:\n"
    )
    (tmp_path / "etc/group").write_text("root:x:0:\nweb:x:34:\nvideo:x:44:web, other\naudio:x:29:web\n")
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("wanted", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0,), "/root"),
        ("web", 33, 34, (34, 44, 29), "/var/www"),
        ("33", 33, 34, (34, 44, 29), "/var/www"),
        ("web:audio", 33, 29, (29,), "/var/www"),
        ("web:", 33, 34, (34, 44, 29), "/var/www"),
        ("5000", 5000, 0, (0,), "/"),
        ("5000:6000", 5000, 6000, (6000,), "/"),
        ("2147483647:2147483647", 2147483647, 2147483647, (2147483647,), "/"),
        ("123", 7, 8, (8,), "/n"),
        (":audio", 0, 29, (29,), "/root"),
    ],
)
def test_users(rootfs, wanted, uid, gid, groups, home):
    found = users.resolve(Root(), rootfs, wanted)
    assert (found.uid, found.gid, found.groups, found.home) == (uid, gid, groups, home)


@pytest.mark.parametrize(
    "wanted", ["nosuch", "1a", "+1", "-1", " 0", "0x0", "٣", "2147483648", "4294967295", "4294967296", "huge", "neg",
               "web:nosuch", "0:4294967296", "0:1a", "0:+0", "99999999999999999999999999"]
)  # fmt: skip
def test_what_is_no_user_is_refused(rootfs, wanted):
    with pytest.raises(StartError):
        users.resolve(Root(), rootfs, wanted)


def test_extra_groups_are_added(rootfs):
    assert users.resolve(Root(), rootfs, "web:web", ["audio", "7"]).groups == (34, 29, 7)


def test_a_passwd_that_is_a_fifo_does_not_hang(tmp_path):
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert users.resolve(Root(), fd, "5").uid == 5
    finally:
        os.close(fd)


# -- restart -----------------------------------------------------------------------------------------------------------


def test_the_delay_doubles_up_to_a_minute_and_starts_over_after_a_stable_run():
    backoff = restart.Backoff()
    delays = [backoff.delay(0.5) for _n in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8] and delays[-1] == 60.0
    assert backoff.delay(10.0) == 0.1 and backoff.delay(9.9) == 0.2


@pytest.mark.parametrize(
    ("policy", "retries", "code", "count", "manual", "expected"),
    [
        ("no", 0, 1, 0, False, False),
        ("always", 0, 0, 99, False, True),
        ("always", 0, 0, 0, True, False),
        ("unless-stopped", 0, 1, 0, False, True),
        ("unless-stopped", 0, 1, 0, True, False),
        ("on-failure", 0, 1, 99, False, True),
        ("on-failure", 0, 0, 0, False, False),
        ("on-failure", 3, 1, 2, False, True),
        ("on-failure", 3, 1, 3, False, False),
    ],
)
def test_policies(policy, retries, code, count, manual, expected):
    assert restart.wanted(policy, retries, code, count, manual) is expected


def test_at_boot_always_means_always():
    assert restart.wanted_at_boot("always", 0, 0, 0, True)
    assert not restart.wanted_at_boot("unless-stopped", 0, 0, 0, True)
    assert restart.wanted_at_boot("on-failure", 0, 255, 0, False)


# -- health ------------------------------------------------------------------------------------------------------------


def check(**more):
    return {"test": ["CMD", "true"], "interval": 10 * health.SECOND, "retries": 2, **more}


def probe(state, code, now, began=None):
    return state.result(code, "", "", "", now if began is None else began, now)


def test_failures_in_a_row_make_unhealthy_and_one_success_healthy():
    state = health.Health(check(), 0.0)
    assert state.due == 10.0
    assert not probe(state, 1, 11) and state.status == "starting"
    assert probe(state, 1, 22) and state.status == "unhealthy"
    assert probe(state, 0, 33) and state.status == "healthy" and state.streak == 0
    assert not probe(state, 1, 44) and state.status == "healthy" and state.due == 54


def test_the_start_period_forgives_until_the_first_success():
    state = health.Health(check(start_period=100 * health.SECOND, start_interval=2 * health.SECOND), 0.0)
    assert state.due == 2.0
    for now in (2, 4, 6, 8):
        probe(state, 1, now)
    assert state.status == "starting" and state.streak == 0
    probe(state, 0, 10)
    assert state.status == "healthy" and state.due == 20
    probe(state, 1, 20)
    assert state.streak == 1


def test_a_probe_begun_within_the_start_period_is_forgiven_even_if_it_ends_later():
    state = health.Health(check(start_period=10 * health.SECOND, retries=1), 0.0)
    probe(state, -1, 40, began=9)
    assert state.status == "starting"
    probe(state, -1, 80, began=50)
    assert state.status == "unhealthy"


def test_only_the_last_five_results_are_kept():
    state = health.Health(check(), 0.0)
    for number in range(9):
        state.result(0, str(number), "", "", 0, number)
    assert [entry["output"] for entry in state.log] == ["4", "5", "6", "7", "8"]


@pytest.mark.parametrize(
    ("test", "argv"),
    [(["CMD", "a", "b"], ["a", "b"]), (["CMD-SHELL", "a | b"], ["/bin/sh", "-c", "a | b"])],
)
def test_the_forms_of_a_check(test, argv):
    assert health.Health({"test": test}, 0.0).argv == argv and health.enabled({"test": test})


@pytest.mark.parametrize("nothing", [None, {}, {"test": []}, {"test": ["NONE"]}, {"test": ["CMD"]}])
def test_no_check(nothing):
    assert not health.enabled(nothing)


# -- state -------------------------------------------------------------------------------------------------------------


def running(**more):
    pid = os.getpid()
    return {
        **statefile.blank("c"), "status": "running", "pid": pid, "pid_start": procfs.start_time(pid),
        "boot_id": procfs.boot_id(), "exit_code": 0, **more,
    }  # fmt: skip


def test_a_living_process_is_believed():
    assert statefile.present(running())["status"] == "running"


@pytest.mark.parametrize("lie", [{"pid_start": 1}, {"boot_id": "other"}, {"pid": 0}])
def test_a_process_that_is_another_or_of_another_boot_is_not_believed(lie):
    state = statefile.present(running(**lie))
    assert (state["status"], state["exit_code"], state["pid"]) == ("exited", 255, 0)


def test_waiting_for_a_restart_needs_somebody_who_waits():
    state = running(status="restarting", exit_code=3, monitor_pid=os.getpid(), monitor_start=1)
    assert statefile.present(state)["status"] == "exited" and statefile.present(state)["exit_code"] == 3
    state["monitor_start"] = procfs.start_time(os.getpid())
    assert statefile.present(state)["status"] == "restarting"


def test_a_start_whose_monitor_was_killed_before_it_was_noted_is_running():
    assert statefile.present(running(status="created"))["status"] == "running"
    assert statefile.present(running(status="created", pid_start=1))["status"] == "created"


def test_state_is_replaced_atomically_and_damage_is_no_state(tmp_path):
    path = str(tmp_path / "state.json")
    assert statefile.read(path) is None
    statefile.write_json(path, statefile.blank("c"))
    assert statefile.read(path)["status"] == "created"
    assert os.listdir(tmp_path) == ["state.json"]
    (tmp_path / "state.json").write_text('{"status": ')
    assert statefile.read(path) is None


# -- errors over the wire ----------------------------------------------------------------------------------------------


def test_errors_survive_the_wire():
    error = StartError("it failed", step="exec", path="/x", errno=2, hint="try", details={"exit_code": 127})
    back = wire.error_from_dict(wire.error_to_dict(error))
    assert isinstance(back, StartError) and back.as_dict() == error.as_dict() and back.msg == "it failed"


def test_an_oserror_over_the_wire_keeps_its_number():
    back = wire.error_from_dict(wire.error_to_dict(OSError(13, "Permission denied", "/x"), "mounts"))
    assert back.kind == "kernel" and back.errno == 13 and back.step == "mounts" and "/x" in back.msg


def test_a_class_that_is_no_error_of_ours_is_not_made():
    assert type(wire.error_from_dict({"class": "os", "msg": "x"})).__name__ == "WharfError"
    assert isinstance(wire.error_from_dict({"class": "UsageError", "msg": "x"}), UsageError)


def test_env_lines_without_a_name_or_value_sign_are_dropped():
    identity = users.Identity(0, 0, (), "/root", "root")
    env = finalize.environment({"env": ["A=1", "B", "=x", "C=a=b", "A=2"]}, identity)
    assert env == {"A": "2", "C": "a=b", "HOME": "/root"}
