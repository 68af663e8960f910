# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker's filters: what is unknown or malformed is refused, and the rest matches as Docker matches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from module_utils._engine.errors import UsageError
from module_utils._engine.resources import container_list, lists
from module_utils._engine.resources.filters import Filters, glob
from module_utils._engine.resources.task import Task

PARSERS = [container_list.parse, lists.image_filters, lists.network_filters, lists.volume_filters]


@pytest.mark.parametrize("parse", PARSERS)
def test_an_unknown_filter_is_refused_with_the_list_of_known_ones(parse: Any) -> None:
    with pytest.raises(UsageError, match=r"filters: invalid filter 'colour'; there are .*label"):
        parse(Task({"filters": {"colour": "red"}}))


@pytest.mark.parametrize(
    ("parse", "filters", "words"),
    [
        (container_list.parse, {"status": "up"}, "'up' is not one of created, restarting, running"),
        (container_list.parse, {"health": "fine"}, "is not one of starting, healthy, unhealthy, none"),
        (container_list.parse, {"exited": "one"}, "is not a whole number"),
        (container_list.parse, {"name": "("}, "is no regular expression"),
        (container_list.parse, {"publish": "http"}, "is no port such as"),
        (container_list.parse, {"expose": "90-80"}, "is no port such as"),
        (container_list.parse, {"publish": "70000"}, "is no port such as"),
        (container_list.parse, {"is-task": "maybe"}, "is neither true nor false"),
        (container_list.parse, {"name": None}, "is no value"),
        (lists.image_filters, {"until": "yesterday"}, "is neither a time nor a duration"),
        (lists.image_filters, {"reference": "a[b"}, "syntax error in pattern"),
        (lists.image_filters, {"dangling": "2"}, "is neither true nor false"),
        (lists.network_filters, {"type": "bridge"}, "is not one of builtin, custom"),
    ],
)
def test_a_bad_value_is_refused_before_anything_is_looked_at(parse: Any, filters: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse(Task({"filters": filters}))
    assert caught.value.path == "filters." + next(iter(filters))


@pytest.mark.parametrize(
    ("labels", "matches"),
    [
        ("app", True),
        ("app=shop", True),
        ("app=other", False),
        (["app=shop", "tier"], True),
        (["app=shop", "absent"], False),
        ({"app": "shop"}, True),
        ({"app=shop": True, "tier": True}, True),
    ],
)
def test_all_labels_of_a_filter_must_be_there(labels: Any, matches: bool) -> None:
    assert Filters({"label": labels}, ["label"]).labels({"app": "shop", "tier": ""}) is matches


@pytest.mark.parametrize(
    ("wanted", "name", "matches"),
    [("web", "web1", True), ("^web$", "web1", False), ("^/web1$", "web1", True), ("a.c", "abc", True)],
)  # fmt: skip
def test_a_name_is_a_regular_expression_with_or_without_the_slash(wanted: str, name: str, matches: bool) -> None:
    assert Filters({"name": wanted}, ["name"]).text("name", [name, "/" + name]) is matches


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("nginx:*", "nginx:1.29", True), ("*", "team/app", False), ("*/a", "b/a", True), ("ngin?", "ngin", False),
        ("[a-n]ginx", "nginx", True), ("[^n]ginx", "nginx", False), ("a\\*", "a*", True), ("a.c", "abc", False),
    ],
)  # fmt: skip
def test_a_star_in_a_reference_does_not_match_a_slash(pattern: str, text: str, matches: bool) -> None:
    assert bool(glob(pattern).fullmatch(text)) is matches


@given(
    st.dictionaries(st.sampled_from([*container_list.KNOWN, *lists.IMAGES, "x"]), st.text() | st.booleans() | st.none())
)
def test_no_filter_makes_a_traceback(filters: dict[str, Any]) -> None:
    for parse in PARSERS:
        try:
            parse(Task({"filters": filters}))
        except UsageError:
            continue
