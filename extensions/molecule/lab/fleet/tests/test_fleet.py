# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rolling update over two hosts, seen by somebody who asked both of them all the time, from each of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

REGISTRY = "10.77.0.15:5443"
LOAD = "/var/tmp/load.jsonl"


@pytest.fixture(scope="module")
def answers(host: Any) -> dict[str, list[dict[str, Any]]]:
    """What somebody on this host was told, by URL, in the order of the questions."""
    with host.sudo():
        lines = [json.loads(line) for line in host.file(LOAD).content_string.splitlines()]
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(line["url"], []).append(line)
    return found


def test_no_request_failed(answers: dict[str, list[dict[str, Any]]]) -> None:
    assert len(answers) == 2
    for url, lines in answers.items():
        assert [line for line in lines if "body" not in line] == [], url
        assert len(lines) > 50, url


def test_every_host_went_from_the_old_release_to_the_new_one_once(answers: dict[str, list[dict[str, Any]]]) -> None:
    for url, lines in answers.items():
        told = [line["body"] for line in lines]
        assert set(told) == {"1", "2"} and told == sorted(told), url


def test_one_host_after_the_other(answers: dict[str, list[dict[str, Any]]]) -> None:
    switched = {url: next(line["at"] for line in lines if line["body"] == "2") for url, lines in answers.items()}
    first, second = sorted(switched, key=lambda url: switched[url])
    between = [line["body"] for line in answers[second] if switched[first] <= line["at"] < switched[second]]
    assert between and set(between) == {"1"}


def test_nothing_is_left_of_what_was_replaced_and_of_what_did_not_come_up(host: Any) -> None:
    code = (
        "import sqlite3; state = sqlite3.connect('/var/lib/wharf/state.db'); "
        "print(sorted(row[0] for row in state.execute('select name from containers')))"
    )
    with host.sudo():
        names = host.check_output("python3 -c %s", code)
        processes = host.check_output("pgrep -c httpd")
    registry = ["wharf-registry"] if host.backend.get_hostname() == "debian12b" else []
    assert names == str(["tool", "web", *registry])
    assert processes == "1"


def test_what_the_controller_had_is_there_byte_by_byte(host: Any) -> None:
    with host.sudo():
        assert host.file("/var/tmp/cargo").content_string == "came with the tide\n" * 20000


def test_the_registry_shows_strangers_a_certificate_and_nothing_else(host: Any) -> None:
    ask = (
        "import ssl, sys, urllib.request as u, urllib.error as e\n"
        "try:\n"
        " print(u.urlopen('https://%s/v2/', context=ssl.create_default_context(cafile=sys.argv[1] or None)).status)\n"
        "except e.HTTPError as error:\n"
        " print(error.code)\n"
        "except e.URLError as error:\n"
        " print(type(error.reason).__name__)\n"
    ) % REGISTRY
    with host.sudo():
        trusted = "/etc/containers/certs.d/%s/ca.crt" % REGISTRY
        assert host.check_output("python3 -c %s %s", ask, trusted) == "401"
        assert host.check_output("python3 -c %s %s", ask, "") == "SSLCertVerificationError"


def test_systemd_is_content(host: Any) -> None:
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""
