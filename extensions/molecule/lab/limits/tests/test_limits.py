# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every limit by its effect: a load runs against it."""

from __future__ import annotations

import functools
from typing import Any

import pytest

UNIT = "/sys/fs/cgroup/system.slice/wharf-containers.service/wharf/"


def inside(host: Any, *argv: str, container: str = "limited") -> dict[str, Any]:
    """What ``container_exec`` returns; a failure of the command is a result, not an error."""
    words = ",".join('"%s"' % word.replace("\\", "\\\\").replace('"', '\\"') for word in argv)
    result = host.ansible(
        "wharf.engine.container_exec",
        '{"container": "%s", "argv": [%s]}' % (container, words),
        check=False,
        become=True,
    )
    return dict(result)


@functools.cache
def identity(host: Any, container: str) -> str:
    facts = host.ansible("wharf.engine.container_info", '{"name": "%s"}' % container, check=False, become=True)
    return str(facts["container"]["Id"])


def kernel(host: Any, file: str) -> str:
    with host.sudo():
        return str(host.check_output("cat %s%s/%s" % (UNIT, identity(host, "limited"), file)))


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
    assert inside(host, "grep", "Cpus_allowed_list", "/proc/self/status")["stdout"].split()[-1] == "1"


def test_there_are_no_more_processes_than_allowed(host: Any) -> None:
    result = inside(host, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 2 & done; wait")
    assert result["rc"] != 0 and "fork" in result["stderr"], result


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
