# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every limit by its effect: a load runs against it."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import pytest

UNIT = "/sys/fs/cgroup/system.slice/wharf-containers.service/wharf/"


def inside(host: Any, *argv: str, container: str = "limited", **options: Any) -> dict[str, Any]:
    """What ``container_exec`` returns; a failure of the command is a result, not an error."""
    arguments = json.dumps({"container": container, "argv": argv, **options})
    return dict(host.ansible("wharf.engine.container_exec", arguments, check=False, become=True))


@functools.cache
def identity(host: Any, container: str) -> str:
    return str(info(host, container)["Id"])


def info(host: Any, container: str, **options: Any) -> dict[str, Any]:
    arguments = json.dumps({"name": container, **options})
    facts = host.ansible("wharf.engine.container_info", arguments, check=False, become=True)
    return dict(facts["container"])


def sudo(host: Any, command: str) -> str:
    with host.sudo():
        return str(host.check_output(command))


def kernel(host: Any, file: str, container: str = "limited") -> str:
    return sudo(host, "cat %s%s/%s" % (UNIT, identity(host, container), file))


def counter(host: Any, file: str, key: str) -> int:
    return int(dict(line.split() for line in kernel(host, file).splitlines())[key])


def test_memory_beyond_the_limit_kills(host: Any) -> None:
    before = counter(host, "memory.events", "oom_kill")
    result = inside(host, "busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")
    assert result["rc"] == 137, result
    assert counter(host, "memory.events", "oom_kill") > before


def test_the_container_survived_it(host: Any) -> None:
    assert inside(host, "echo", "here")["stdout"].strip() == "here"


def test_half_a_processor_is_half_a_processor(host: Any) -> None:
    script = "(while :; do :; done) & p=$!; sleep 6; kill $p"
    before, throttled = counter(host, "cpu.stat", "usage_usec"), counter(host, "cpu.stat", "nr_throttled")
    inside(host, "sh", "-c", script)
    used = counter(host, "cpu.stat", "usage_usec") - before
    assert counter(host, "cpu.stat", "nr_throttled") > throttled
    assert 1_000_000 < used < 4_500_000, used  # six seconds of an endless loop


def test_it_runs_where_it_may(host: Any) -> None:
    pid = info(host, "limited")["State"]["Pid"]
    assert sudo(host, "grep Cpus_allowed_list /proc/%d/status" % pid).split()[-1] == "1"
    assert inside(host, "grep", "Cpus_allowed_list", "/proc/self/status")["stdout"].split()[-1] == "1"


def test_there_are_no_more_processes_than_allowed(host: Any) -> None:
    result = inside(host, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 2 & done; wait")
    assert result["rc"] != 0 and "fork" in result["stderr"], result


def test_what_it_uses_is_told(host: Any) -> None:
    found = info(host, "limited", stats=True, top=True)
    stats = found["Stats"]
    assert stats["memory_stats"]["limit"] == 48 << 20 and 0 < stats["memory_used"] < 48 << 20, stats
    assert stats["pids_stats"]["limit"] == 12 and stats["pids_stats"]["current"] >= 2, stats
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0, stats
    commands = [row[found["Top"]["Titles"].index("CMD")] for row in found["Top"]["Processes"]]
    assert any("sleep 86400" in command for command in commands), commands


def test_a_disk_is_written_and_read_no_faster_than_allowed(host: Any) -> None:
    """Six times what a second allows; both ways, and not out of the cache."""
    limits = dict(word.split("=") for word in kernel(host, "io.max", "slow").split()[1:])
    assert limits["rbps"] == limits["wbps"] == str(256 << 10), limits
    script = (
        "a=$(cut -d. -f1 /proc/uptime) && dd if=/dev/zero of=/data/f bs=64k count=24 conv=fsync 2>/dev/null && "
        "b=$(cut -d. -f1 /proc/uptime) && echo $((b - a))"
    )
    script = script.replace("cut", "busybox cut").replace("dd if", "busybox dd if")
    result = inside(host, "sh", "-c", script, container="slow")
    assert result["rc"] == 0 and int(result["stdout"]) >= 4, result
    sudo(host, "sync; echo 3 > /proc/sys/vm/drop_caches")
    result = inside(host, "sh", "-c", script.replace("if=/dev/zero of=/data/f", "if=/data/f of=/dev/null").replace(
        " conv=fsync", ""), container="slow")  # fmt: skip
    assert result["rc"] == 0 and int(result["stdout"]) >= 4, result


def test_root_with_ids_of_its_own_is_nobody_outside(host: Any) -> None:
    script = "cat /proc/self/uid_map; id -u; echo x > /tmp/f && ls -ln /tmp/f"
    result = inside(host, "sh", "-c", script, container="apart")
    lines = result["stdout"].splitlines()
    first, outside, size = map(int, lines[0].split())
    assert (first, size) == (0, 65536) and outside >= 65536 and lines[1] == "0", result
    assert lines[2].split()[2:4] == ["0", "0"], result
    pid = info(host, "apart")["State"]["Pid"]
    assert sudo(host, "grep Uid: /proc/%d/status" % pid).split()[1:] == [str(outside)] * 4
    # What an exec asks for counts inside.
    result = inside(
        host, "sh", "-c", "id -u; echo $WORD; busybox pwd", container="apart", user="1000:1000", chdir="/tmp",
        env={"WORD": "word"},
    )  # fmt: skip
    assert result["stdout"].split() == ["1000", "word", "/tmp"], result


def test_root_with_the_hosts_ids_rules_only_what_is_its_own(host: Any) -> None:
    """The host's clock is nobody's own."""
    result = inside(host, "sh", "-c", "cat /proc/self/uid_map; busybox date -s @0", container="kept")
    assert result["stdout"].split()[:2] == ["0", "0"] and "not permitted" in result["stderr"], result
    pid = info(host, "kept")["State"]["Pid"]
    assert sudo(host, "readlink /proc/%d/ns/user" % pid) != sudo(host, "readlink /proc/1/ns/user")
    assert sudo(host, "grep Uid: /proc/%d/status" % pid).split()[1:] == ["0"] * 4


def test_a_device_is_for_what_it_was_given_for(host: Any) -> None:
    result = inside(host, "sh", "-c", "busybox head -c 4 /dev/disk | busybox wc -c", container="mighty")
    assert result["stdout"].strip() == "4", result
    result = inside(host, "sh", "-c", ": >> /dev/disk", container="mighty")
    assert result["rc"] != 0 and "not permitted" in result["stderr"], result


def test_only_harmless_devices_can_be_opened(host: Any) -> None:
    result = inside(host, "sh", "-c", "busybox mknod /disk b 254 0 && cat /disk | busybox head -c 1")
    assert "not permitted" in result["stderr"], result
    assert inside(host, "sh", "-c", "busybox head -c 4 /dev/zero | busybox wc -c")["stdout"].strip() == "4"


def test_apparmor_has_the_last_word(host: Any) -> None:
    """CAP_SYS_ADMIN and the filter let it mount; the profile does not."""
    if host.file("/sys/module/apparmor/parameters/enabled").content_string.strip() != "Y":
        pytest.skip("no AppArmor here")
    label = inside(host, "cat", "/proc/self/attr/current", container="mighty")["stdout"].strip()
    assert label == "wharf-default (enforce)"
    result = inside(host, "busybox", "mount", "-t", "tmpfs", "x", "/tmp", container="mighty")
    assert result["rc"] != 0 and "denied" in result["stderr"].lower(), result
    result = inside(host, "sh", "-c", "echo 1 > /proc/sysrq-trigger", container="mighty")
    assert result["rc"] != 0, result


def test_the_runtime_by_itself_has_systemd_make_the_cgroup(host: Any) -> None:
    oci = "/usr/local/bin/wharf-oci --systemd-cgroup "
    sudo(host, oci + "run --detach --bundle /var/lib/lab-bundle lab </dev/null >/var/lib/lab-bundle/log 2>&1")
    try:
        state = json.loads(sudo(host, oci + "state lab"))
        assert state["status"] == "running", state
        shown = sudo(host, "systemctl show wharf-lab.scope --property=ActiveState,Delegate,ControlGroup")
        assert set(shown.split()) == {
            "ActiveState=active", "Delegate=yes", "ControlGroup=/system.slice/wharf-lab.scope"
        }  # fmt: skip
        group = "/sys/fs/cgroup/system.slice/wharf-lab.scope"
        assert str(state["pid"]) in sudo(host, "cat $(find %s -name cgroup.procs)" % group).split()
        assert sudo(host, "cat %s/memory.max %s/pids.max" % (group, group)).split() == [str(1 << 25), "9"]
        assert sudo(host, "grep Cpus_allowed_list /proc/%d/status" % state["pid"]).split()[-1] == "1"
        assert sudo(host, oci + "exec lab /bin/grep Cpus_allowed_list /proc/self/status").split()[-1] == "1"
        # No device but the harmless ones, by the kernel's own word.
        words = sudo(host, oci + "exec lab /bin/sh -c 'busybox head -c 4 /dev/zero | busybox wc -c'")
        assert words.strip() == "4"
        assert sudo(host, oci + "exec lab /bin/hostname").strip() == "wharf"
    finally:
        with host.sudo():
            host.run(oci + "kill lab KILL")
    until(lambda: json.loads(sudo(host, oci + "state lab"))["status"] == "stopped")
    sudo(host, oci + "delete lab")
    until(lambda: sudo(host, "systemctl show wharf-lab.scope --property=LoadState --value") == "not-found")
    assert json.loads(sudo(host, oci + "list --format json") or "null") in (None, [])


def until(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(1)
