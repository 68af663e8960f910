# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""References: Docker's normal form, and refusals that name the bad part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import UsageError
from module_utils._engine.images.reference import Reference, check_registry, familiar, is_digest, parse

D = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("user/app:1", "docker.io/user/app:1", "user/app:1"),
        ("index.docker.io/x", "docker.io/library/x:latest", "x:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),  # found by make fuzz
        ("docker.io/localhost/c:1", "docker.io/localhost/c:1", "docker.io/localhost/c:1"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
        ("Reg/app", "Reg/app:latest", "Reg/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        ("[2001:db8::1]/app", "[2001:db8::1]/app:latest", "[2001:db8::1]/app:latest"),
        ("a.b/c__d-e--f.g", "a.b/c__d-e--f.g:latest", "a.b/c__d-e--f.g:latest"),
        ("busybox@" + D, "docker.io/library/busybox@" + D, "busybox@" + D),
        ("busybox:1@" + D, "docker.io/library/busybox@" + D, "busybox:1@" + D),
        ("x:_A.b-C", "docker.io/library/x:_A.b-C", "x:_A.b-C"),
    ],
)
def test_the_normal_form_is_dockers(text: str, full: str, short: str) -> None:
    reference = parse(text)
    assert str(reference) == full
    assert reference.familiar() == short
    assert familiar(full) == parse(full).familiar()
    assert parse(reference.familiar()) == reference
    assert str(parse(full)) == full


def test_with_tag_and_digest_the_digest_decides() -> None:
    assert parse("busybox:1@" + D).canonical() == "docker.io/library/busybox@" + D
    assert parse("busybox:1").canonical() == "docker.io/library/busybox:1"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "reference"),
        (" x", "reference"),
        ("x\n", "reference"),
        ("x\x00y", "reference"),
        ("User/App", "repository"),  # "User" is read as a registry; "App" is upper case
        ("BusyBox", "repository"),
        ("a/../b", "repository"),
        ("../b", "registry"),
        ("a//b", "repository"),
        ("a/", "repository"),
        ("/a", "repository"),
        ("a_", "repository"),
        ("a...b", "repository"),
        ("a___b", "repository"),
        ("a._b", "repository"),
        ("bücher", "repository"),
        ("reg.example.com/" + "a" * 240, "repository"),
        ("f" * 64, "repository"),
        ("a@sha256:zz", "digest"),
        ("a@sha256:" + "AB" * 32, "digest"),
        ("a@sha512:" + "ab" * 64, "digest"),
        ("a@", "digest"),
        ("a@%s@%s" % (D, D), "digest"),
        ("a:tag:tag", "tag"),
        ("a:", "tag"),
        ("a:-x", "tag"),
        ("a:" + "t" * 129, "tag"),
        ("reg:/x", "registry"),
        ("reg:0/x", "registry"),
        ("reg:70000/x", "registry"),
        ("reg:5o/x", "registry"),
        ("-a.b/x", "registry"),
        ("a..b/x", "registry"),
        ("[::1/x", "registry"),
        ("[::1]x/y", "registry"),
        ("[fe80::1%25eth0]/y", "registry"),
        ("user@host.example/x", "digest"),
    ],
)
def test_a_bad_reference_is_refused_naming_the_part(text: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.details["part"] == part
    assert caught.value.kind == "usage"


def test_a_registry_name_is_taken_with_or_without_scheme() -> None:
    assert check_registry("https://index.docker.io/v1/") == "docker.io"
    assert check_registry("reg.example.com:5000") == "reg.example.com:5000"
    assert check_registry("http://127.0.0.1:5000/") == "127.0.0.1:5000"
    with pytest.raises(UsageError):
        check_registry("reg/../x")


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused_and_never_crashes(text: str) -> None:
    try:
        reference = parse(text)
    except UsageError:
        return
    assert isinstance(reference, Reference)
    assert str(parse(str(reference))) == str(reference)
    assert ".." not in reference.path.split("/") and not reference.path.startswith("/")


@given(st.text(alphabet="ab0._-/:@A[]", max_size=40))
def test_whatever_parses_is_a_fixed_point(text: str) -> None:
    try:
        reference = parse(text)
    except UsageError:
        return
    assert str(parse(str(reference))) == str(reference)
    assert parse(reference.familiar()) == reference
    assert familiar(str(reference)) == parse(str(reference)).familiar()


@given(st.text(max_size=80))
def test_a_digest_is_only_sha256_and_64_hex(text: str) -> None:
    assert not is_digest(text) or (len(text) == 71 and int(text[7:], 16) >= 0 and text.isascii())
