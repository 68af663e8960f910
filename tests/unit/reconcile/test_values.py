# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Two spellings of one wish become equal; a bad value is refused naming the option."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import UsageError
from module_utils._engine.reconcile import values, values_linux


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64m", 64 << 20), ("64M", 64 << 20), ("64MiB", 64 << 20), ("64mb", 64 << 20), (1024, 1024), ("1.5g", 3 << 29),
        ("0", 0), ("512b", 512), ("2T", 2 << 40),
    ],
)  # fmt: skip
def test_a_size_is_bytes_however_it_is_spelled(text: object, size: int) -> None:
    assert values.size("memory", text) == size


@pytest.mark.parametrize("text", ["", "m", "64x", "-5m", "1..5g", "nan", "64 m b"])
def test_a_bad_size_is_refused_naming_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="memory"):
        values.size("memory", text)


def test_unlimited_is_minus_one_only_where_it_means_something() -> None:
    assert values.limit("memory_swap", "-1") == -1
    assert values.limit("memory_swap", "unlimited") == -1
    with pytest.raises(UsageError):
        values.size("memory", "-1")


@pytest.mark.parametrize(
    ("text", "ns"),
    [("30s", 30 * 10**9), ("1m30s", 90 * 10**9), ("500ms", 5 * 10**8), ("5", 5 * 10**9), ("1.5h", 54 * 10**11)],
)
def test_a_duration_is_nanoseconds(text: str, ns: int) -> None:
    assert values.duration("healthcheck.interval", text) == ns


@pytest.mark.parametrize("text", ["", "s", "1x", "1m30", "abc", "-5", "-1m"])
def test_a_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        values.duration("healthcheck.interval", text)


def port(host_ip: str, host: int, container: int, protocol: str = "tcp") -> dict[str, object]:
    return {"host_ip": host_ip, "host_port": host, "container_port": container, "protocol": protocol}


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [port("", 0, 80)]),
        ("8080:80", [port("", 8080, 80)]),
        ("0.0.0.0:8080:80", [port("", 8080, 80)]),
        ("127.0.0.1:8080:80/udp", [port("127.0.0.1", 8080, 80, "udp")]),
        ("[::1]:8080:80", [port("::1", 8080, 80)]),
        ("127.0.0.1::53/udp", [port("127.0.0.1", 0, 53, "udp")]),
        ("8000-8001:80-81", [port("", 8000, 80), port("", 8001, 81)]),
        ("90-91", [port("", 0, 90), port("", 0, 91)]),
    ],
)
def test_published_ports_follow_dockers_grammar(text: str, ports: list[dict[str, object]]) -> None:
    assert values.published_port("published_ports[0]", text) == ports


@pytest.mark.parametrize(
    "text",
    [
        "65536:80",
        "8080:0",
        "a:80",
        "8000-8002:80-81",
        "1.2.3:80:80",
        "8080:80/icmp",
        "::1:8080:80",
        "9-8:1-2",
        "[::1:80:80",
    ],
)
def test_a_bad_port_is_refused_naming_the_option(text: str) -> None:
    with pytest.raises(UsageError, match=r"published_ports\[0\]"):
        values.published_port("published_ports[0]", text)


def test_volumes_syntax_tells_bind_volume_and_anonymous_apart() -> None:
    assert values.volume_mount("v", "/srv:/data:ro") == {
        "type": "bind", "source": "/srv", "target": "/data", "create_source": True, "read_only": True,
    }  # fmt: skip
    assert values.volume_mount("v", "web:/data/") == {"type": "volume", "source": "web", "target": "/data"}
    assert values.volume_mount("v", "/data") == {"type": "volume", "source": "", "target": "/data", "anonymous": True}


@pytest.mark.parametrize(
    "text", ["web:/", "./x:/data", "web:data", "web:/data:bogus", "a:/b:ro:x", "::", "web:/a/../.."]
)
def test_a_bad_volume_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        values.volume_mount("volumes[0]", text)


def test_an_unknown_tmpfs_option_is_refused_and_known_ones_are_kept() -> None:
    assert values_linux.tmpfs_mount("tmpfs[0]", "/run:size=64m,mode=1770,exec") == {
        "type": "tmpfs", "target": "/run", "tmpfs_size": 64 << 20, "tmpfs_mode": 0o1770, "options": ["exec"],
    }  # fmt: skip
    with pytest.raises(UsageError, match="bogus"):
        values_linux.tmpfs_mount("tmpfs[0]", "/run:bogus=1")


def test_cpusets_are_compared_by_what_they_mean() -> None:
    assert values.cpuset("c", "0,1,2") == values.cpuset("c", "0-2") == "0-2"
    with pytest.raises(UsageError):
        values.cpuset("c", "3-1")


def test_values_that_yaml_would_have_rewritten_are_refused() -> None:
    for value in (True, 1.0, None):
        with pytest.raises(UsageError, match="quote"):
            values.env("env", {"A": value})
    assert values.env("env", {"A": 1}) == {"A": "1"}


@given(st.text(max_size=40))
def test_no_text_makes_a_parser_fail_other_than_by_usage_error(text: str) -> None:
    for function in (
        values.size, values.duration, values.published_port, values.exposed_port, values.volume_mount,
        values_linux.tmpfs_mount, values.ulimit, values.device, values.cpuset, values.octal, values.volume_name,
    ):  # fmt: skip
        try:
            function("option", text)
        except UsageError as error:
            assert "option" in error.msg


def test_an_env_file_line_without_equals_is_refused_with_its_number(tmp_path: object) -> None:
    path = "%s/env" % tmp_path
    with open(path, "w") as stream:
        stream.write("# comment\nA=1\n\nB=two words\n")
    assert values.env_file(path) == {"A": "1", "B": "two words"}
    with open(path, "a") as stream:
        stream.write("C\n")
    with pytest.raises(UsageError, match="line 5"):
        values.env_file(path)
