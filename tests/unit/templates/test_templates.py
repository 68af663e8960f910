# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Go's text/template, held to what the docker program makes of the same templates (``docker.json``), and fuzzed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from module_utils._engine.errors import UsageError
from module_utils._engine.templates import Template
from module_utils._engine.templates.values import GoMap

with open(os.path.join(os.path.dirname(__file__), "docker.json"), encoding="utf-8") as _stream:
    RECORDED: dict[str, Any] = json.load(_stream)


def as_maps(value: Any) -> Any:
    if isinstance(value, dict):
        return GoMap({key: as_maps(item) for key, item in value.items()})
    return [as_maps(item) for item in value] if isinstance(value, list) else value


DATA = {"Name": "data", "Metadata": as_maps(RECORDED["data"]["Metadata"])}


def render(template: str, data: Any = None, shapes: Optional[dict[str, str]] = None) -> Optional[str]:
    """None when the template is refused."""
    try:
        return Template(template, shapes or {}).render(DATA if data is None else data)
    except UsageError:
        return None


@pytest.mark.parametrize(("template", "expected"), RECORDED["cases"])
def test_a_template_means_what_docker_takes_it_for(template: str, expected: Optional[str]) -> None:
    assert render(template) == expected


@pytest.mark.skipif(shutil.which("docker") is None, reason="the docker program is not installed")
def test_what_was_recorded_is_what_the_docker_program_here_says(tmp_path: Any) -> None:
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"data").hexdigest()
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": "unix:///nowhere", "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({**RECORDED["data"], "Endpoints": endpoints}))
    for template, expected in RECORDED["cases"][::10]:  # a sample: each is a process of its own
        typed = template.replace(".Metadata", ".Metadata.Metadata.AdditionalFields")
        done = subprocess.run(
            ["docker", "--config", str(tmp_path), "context", "inspect", "data", "--format", typed],
            capture_output=True,
            check=False,
        )
        said = None if done.returncode else done.stdout.decode()[:-1]
        assert said == expected, template


SHAPES = {"Labels": "strings", "Ports": "slices", "Networks": "map", "CapAdd": "list", "Health": "pointer"}
CONTAINER: dict[str, Any] = {
    "Id": "abc",
    "Args": ["-g", "daemon off;"],
    "State": {"Pid": 7, "Running": True},
    "Labels": {"b": "2", "a": "1"},
    "CapAdd": None,
    "Swappiness": None,
    "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "443/tcp": None},
    "Networks": {"shop": {"IPAddress": "10.0.0.2"}},
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{json .CapAdd}} {{.CapAdd}} {{len .CapAdd}}", "null [] 0"),
        ("{{.Labels.a}} {{.Labels.c}} {{index .Labels \"c\"}}|", "1 <no value> |"),
        ("{{json .Labels}} {{json .}}"[:17], '{"a":"1","b":"2"} '),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}no check{{end}}", "no check"),
        ("{{.Swappiness}}", "<nil>"),
        (
            "{{range $p, $conf := .Ports}}{{$p}} -> {{if $conf}}{{(index $conf 0).HostPort}}{{else}}-{{end}}; {{end}}",
            "443/tcp -> -; 80/tcp -> 8080; ",
        ),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{with index .Ports "81/tcp"}}x{{else}}none{{end}}', "none"),
        ("{{range .Networks}}{{.IPAddress}}{{end}} {{.Networks.shop.IPAddress}}", "10.0.0.2 10.0.0.2"),
        ('{{join .Args " "}}', "-g daemon off;"),
        ("{{json .Ports}}", '{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]}'),
    ],
)  # fmt: skip
def test_maps_structs_and_nil_are_told_apart_by_their_fields_names(template: str, expected: str) -> None:
    assert render(template, CONTAINER, SHAPES) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ json .MacAddress }}", '1:8: executing "" at <.MacAddress>: map has no entry for key "MacAddress"'),
        ("a\nbé {{.Nope}}", '2:6: executing "" at <.Nope>: map has no entry for key "Nope"'),
        ("{{if .Id}}", "1:10: unexpected EOF"),
        ("{{nope .Id}}", '1:2: function "nope" not defined'),
        ("{{.Id", "1:5: unclosed action"),
        ('{{"abc}}', "1:2: unterminated quoted string"),
        ("{{$x}}", '1:2: undefined variable "$x"'),
        ("{{.Swappiness.X}}", "nil pointer evaluating interface {}.X"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_column_in_docker_s_words(template: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(template, SHAPES).render(CONTAINER)
    assert words in caught.value.msg
    assert caught.value.msg.startswith("format: template: :")
    assert caught.value.details["line"] == 1 + template.count("\n")


def test_a_field_that_is_missing_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        Template("{{.State.Nope}}").render(CONTAINER)
    assert caught.value.hint == "there are Pid, Running"


@pytest.mark.parametrize(
    "template",
    [
        "{{range 100000000000}}{{end}}",
        '{{range 1000000}}{{printf "%1000d" 1}}{{end}}',
        '{{pad "x" 9000000000000000000 1}}',
        '{{printf "%1000000000d|%.1000000000f" 1 1.5}}{{range 999999999}}{{end}}',
        '{{define "a"}}{{template "a"}}{{end}}{{template "a"}}',
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{if 1}}" * 5000 + "{{end}}" * 5000,
        "{{if 1}}" + "{{else if 1}}" * 5000 + "{{end}}",
    ],
)
def test_a_template_that_would_never_end_is_refused(template: str) -> None:
    with pytest.raises(UsageError, match="format: template"):
        Template(template).render(CONTAINER)


_WORDS = (
    "{{ }} {{- -}} . .Id .State .Labels .Nope .State.Pid $ $x := = | ( ) , \"a\" `b` 'c' 1 2.5 -3 0x1F 1e9 true nil "
    "if else end range with define template block break continue and or not eq ne lt len index slice print printf "
    'println html js urlquery call json split join title lower upper pad truncate "%d%s%v" "%[2]*.[1]*f" /* */ \\ @ : é'
)
_PIECES = st.sampled_from([*_WORDS.split(), "\n", "\x00"])
_FUNCTIONS = "eq ne lt le gt ge and or index slice print printf println html js split pad truncate join"


@settings(max_examples=1500)
@given(st.lists(_PIECES, max_size=25), st.sampled_from(["", " "]))
def test_no_arrangement_of_words_makes_a_traceback(pieces: list[str], glue: str) -> None:
    text = glue.join(pieces)
    render(text, CONTAINER, SHAPES)
    render("{{%s}}" % text, CONTAINER, SHAPES)
    render("{{range .Labels}}{{with $x := .}}{{%s}}{{end}}{{end}}" % text, CONTAINER, SHAPES)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400)
@given(
    _VALUES,
    _VALUES,
    st.sampled_from(
        [
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "and",
            "or",
            "index",
            "slice",
            "print",
            "printf",
            "println",
            "html",
            "js",
            "split",
            "pad",
            "truncate",
            "join",
        ]
    ),
    st.text(max_size=12),
)
def test_no_value_makes_a_traceback(one: Any, two: Any, function: str, layout: str) -> None:
    data = {"A": one, "B": two, "F": "%" + layout}
    for template in (
        "{{%s .A .B}}" % function, "{{%s .A}}" % function, "{{json .A}}{{.A}}{{len .A}}{{html .B}}{{urlquery .A}}",
        "{{printf .F .A .B}}", "{{range $k, $v := .A}}{{$k}}{{$v}}{{end}}", "{{.A.x}}", "{{title .A}}{{upper .A}}",
    ):  # fmt: skip
        render(template, data)


@settings(max_examples=300)
@given(_VALUES)
def test_json_is_read_back_as_the_same_value(value: Any) -> None:
    text = render("{{json .A}}", {"A": value})
    if text is None:  # NaN and infinity are no JSON
        return
    if "\\ud" not in json.dumps(value):  # lone surrogates are no text, and replaced
        assert json.loads(text, parse_int=float) == json.loads(json.dumps(value), parse_int=float)
