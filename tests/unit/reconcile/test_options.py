# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The option table decides what is a difference; comparison is three-way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._args.common import argument_spec
from module_utils._args.container import CONFIG, EXEC, INFO, LOGS, OPERATION
from module_utils._engine.errors import WharfError
from module_utils._engine.reconcile import options
from module_utils._engine.reconcile.plan import Operation, Plan


def spec(**params: Any) -> dict[str, Any]:
    return options.normalise(CONFIG, params)


def test_options_left_out_and_options_asking_for_nothing_are_the_same() -> None:
    assert spec(env={}, tty=False, volumes=[], user="") == spec() == {}


def test_order_of_sets_is_no_difference_and_order_of_commands_is() -> None:
    assert spec(published_ports=["80:80", "81:81"]) == spec(published_ports=["81:81", "80:80"])
    assert spec(command=["a", "b"]) != spec(command=["b", "a"])
    a, b = spec(volumes=["a1:/a", "b1:/b"]), spec(volumes=["b1:/b", "a1:/a"])
    assert not options.differences(CONFIG, a, b, {})


def test_volumes_mounts_and_tmpfs_are_one_list_by_target() -> None:
    merged = spec(volumes=["data:/data"], mounts=[{"target": "/x", "type": "tmpfs"}], tmpfs=["/run"])["mounts"]
    assert sorted(mount["target"] for mount in merged) == ["/data", "/run", "/x"]
    with pytest.raises(WharfError, match="twice"):
        spec(volumes=["data:/data"], tmpfs=["/data"])


def test_a_removed_option_is_a_difference() -> None:
    found = options.differences(CONFIG, spec(env={"A": "1"}, memory="64m"), spec(), {})
    assert {(d.option, d.after, d.why) for d in found} == {("env", None, "asked"), ("memory", None, "asked")}


def test_drift_is_what_the_host_has_and_the_task_never_asked() -> None:
    asked = spec(memory="64m")
    (found,) = options.differences(CONFIG, asked, asked, {"memory": 32 << 20})
    assert (found.option, found.before, found.after, found.why) == ("memory", 32 << 20, 64 << 20, "drift")
    assert not options.differences(CONFIG, asked, asked, {"memory": 64 << 20})


def test_options_that_cannot_change_behaviour_are_never_a_difference() -> None:
    assert not options.differences(CONFIG, spec(stop_timeout=5), spec(stop_timeout=50), {})


def test_every_option_says_how_it_is_compared_and_changed() -> None:
    for name, option in CONFIG.items():
        assert option["change"] in ("live", "replace", "ignore"), name
        assert option["compare"] in ("scalar", "list", "set", "dict", "named", "ignore"), name
        if "normal" in option:
            from module_utils._engine.reconcile import values, values_linux

            assert callable(getattr(values, option["normal"], None) or getattr(values_linux, option["normal"])), name


def test_the_argument_spec_holds_nothing_but_ansibles_keys() -> None:
    spec_ = argument_spec(CONFIG, OPERATION)
    assert not {"compare", "change", "normal", "into", "key"} & {key for option in spec_.values() for key in option}
    assert spec_["networks"]["options"]["name"] == {"type": "str", "required": True}
    for table in (EXEC, LOGS, INFO):
        assert argument_spec(table)


_SPECS = st.fixed_dictionaries(
    {},
    optional={
        "env": st.dictionaries(st.sampled_from(["A", "B"]), st.sampled_from(["1", "2"])),
        "labels": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])),
        "memory": st.sampled_from(["64m", "65536k", "128m"]),
        "published_ports": st.lists(st.sampled_from(["80:80", "81:81", "0.0.0.0:80:80"]), max_size=3),
        "command": st.sampled_from(["sleep 1", ["sleep", "1"], ["sleep", "2"]]),
        "networks": st.lists(st.sampled_from([{"name": "n1"}, {"name": "n2", "aliases": ["b", "a"]}]), max_size=2),
    },
)


@given(_SPECS, _SPECS)
def test_differences_are_empty_exactly_when_the_wishes_are_equal(a: dict[str, Any], b: dict[str, Any]) -> None:
    one, two = options.normalise(CONFIG, a), options.normalise(CONFIG, b)
    assert not options.differences(CONFIG, one, one, {})
    forth, back = options.differences(CONFIG, one, two, {}), options.differences(CONFIG, two, one, {})
    assert [(d.option, d.before, d.after) for d in forth] == [(d.option, d.after, d.before) for d in back]
    undone = dict(one)
    for difference in forth:
        if difference.after is None:
            del undone[difference.option]
        else:
            undone[difference.option] = difference.after
    assert not options.differences(CONFIG, undone, two, {})


def test_a_failing_operation_undoes_those_before_it_in_reverse_order() -> None:
    log: list[str] = []
    plan = Plan()

    def fail() -> None:
        raise WharfError("no")

    for name in ("a", "b"):
        plan.add(
            Operation(
                "live", "x", name, lambda n=name: log.append("do " + n), undo=lambda n=name: log.append("undo " + n)
            )
        )
    plan.add(Operation("live", "x", "c", fail, undo=lambda: log.append("undo c")))
    with pytest.raises(WharfError, match="no"):
        plan.apply()
    assert log == ["do a", "do b", "undo b", "undo a"]


def test_what_could_not_be_undone_is_told() -> None:
    plan = Plan()

    def fail() -> None:
        raise WharfError("broken")

    plan.add(Operation("live", "x", "a", lambda: None, undo=fail))
    plan.add(Operation("live", "x", "b", fail))
    with pytest.raises(WharfError) as caught:
        plan.apply()
    assert caught.value.details["not_undone"] == ["live a: broken"]
