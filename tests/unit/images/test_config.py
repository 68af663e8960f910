# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Image configs: nulls are tolerated, wrong types are named, and ChainIDs are the specification's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import RegistryError, WharfError
from module_utils._engine.images.config import chain_ids, parse_config
from module_utils._engine.images.inspect import inspect
from module_utils._engine.store.records import ImageRecord, LayerRef

D = "sha256:" + "ab" * 32


def document(**config: Any) -> dict[str, Any]:
    return {"architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": [D]}}


def parse(value: Any, layers: int = 1) -> dict[str, Any]:
    return parse_config(json.dumps(value).encode(), layers=layers)


def test_nulls_count_as_absent() -> None:
    nulls = dict.fromkeys(
        ["User", "Env", "Cmd", "Entrypoint", "Labels", "Volumes", "ExposedPorts", "OnBuild", "Healthcheck", "Shell"]
    )
    assert parse(document(**nulls))["config"] == {}
    assert parse({**document(), "config": None, "history": None, "variant": None})["config"] == {}
    assert parse({"rootfs": {"type": "layers", "diff_ids": None}}, 0)["rootfs"]["diff_ids"] == []


def test_unknown_fields_are_kept() -> None:
    assert parse({**document(Future=1), "moby.x": {"a": 1}})["moby.x"] == {"a": 1}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"Cmd": "sh"}, "config.Cmd"),
        ({"Env": [1]}, "config.Env"),
        ({"Env": {"A": "b"}}, "config.Env"),
        ({"Entrypoint": ["a\0b"]}, "config.Entrypoint"),
        ({"User": 0}, "config.User"),
        ({"WorkingDir": ["/"]}, "config.WorkingDir"),
        ({"Volumes": ["/a"]}, "config.Volumes"),
        ({"ExposedPorts": "80"}, "config.ExposedPorts"),
        ({"Labels": {"a": 1}}, "config.Labels"),
        ({"Healthcheck": []}, "config.Healthcheck"),
        ({"Healthcheck": {"Test": "true"}}, "config.Healthcheck.Test"),
        ({"Healthcheck": {"Interval": "5s"}}, "config.Healthcheck.Interval"),
        ({"Healthcheck": {"Retries": True}}, "config.Healthcheck.Retries"),
    ],
)
def test_a_wrong_type_is_refused_by_its_name(config: dict[str, Any], field: str) -> None:
    with pytest.raises(RegistryError) as caught:
        parse(document(**config))
    assert caught.value.details["field"] == field and field in caught.value.msg


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"config": []}, "config"),
        ({"rootfs": None}, "rootfs"),
        ({"rootfs": {"type": "tar", "diff_ids": [D]}}, "rootfs.type"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:.."]}}, "rootfs.diff_ids"),
        ({"rootfs": {"type": "layers", "diff_ids": []}}, "rootfs.diff_ids"),
        ({"architecture": 5}, "architecture"),
        ({"history": [1]}, "history"),
    ],
)
def test_a_broken_outside_is_refused_by_its_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(RegistryError) as caught:
        parse({**document(), **change})
    assert caught.value.details["field"] == field


def test_environment_entries_that_would_inherit_are_dropped() -> None:
    env = ["A=b", "PATH", "AWS_*", "=x", "", "E=", "F=a=b"]
    assert parse(document(Env=env))["config"]["Env"] == ["A=b", "E=", "F=a=b"]


def test_half_of_a_surrogate_pair_is_read_as_go_reads_it() -> None:
    """Such a text could be stored, but not be given to a process."""
    assert parse(document(Env=["A=\ud800b", "C=\U0001f600"]))["config"]["Env"] == ["A=\ufffdb", "C=\U0001f600"]


def test_chain_ids_are_those_of_the_specification() -> None:
    # image-spec identity/chainid_test.go, with digests instead of its "a", "b", "c"
    import hashlib

    ids = ["sha256:" + letter * 64 for letter in "abc"]
    second = "sha256:" + hashlib.sha256(("%s %s" % (ids[0], ids[1])).encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(("%s %s" % (second, ids[2])).encode()).hexdigest()
    assert chain_ids(ids) == [ids[0], second, third]
    assert chain_ids([]) == []


def test_inspect_has_dockers_shape() -> None:
    config = parse({**document(Cmd=["sh"], StopSignal="SIGINT"), "created": "2026-01-01T00:00:00Z"})
    record = ImageRecord(D, D, "type", config, 42, 1.5, (LayerRef(D, D, D, 1, "t"),))
    shown = inspect(record, ["docker.io/library/busybox:1"], ["docker.io/library/busybox@" + D])
    assert shown["RepoTags"] == ["busybox:1"] and shown["RepoDigests"] == ["busybox@" + D]
    assert shown["RootFS"] == {"Type": "layers", "Layers": [D]} and shown["Size"] == 42
    assert shown["Config"]["Cmd"] == ["sh"] and shown["Config"]["StopSignal"] == "SIGINT"
    assert shown["Metadata"]["LastTagTime"] == "1970-01-01T00:00:01.500000000Z"
    json.dumps(shown)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["Env", "Cmd", "User", "Labels", "Volumes", "Healthcheck"]), json_values))
def test_any_config_is_read_or_refused_and_never_crashes(config: dict[str, Any]) -> None:
    try:
        result = parse(document(**config))
    except WharfError:
        return
    for name in ("Env", "Cmd"):
        assert all(isinstance(item, str) for item in result["config"].get(name, []))
