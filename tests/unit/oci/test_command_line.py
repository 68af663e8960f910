# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line: options as runc's callers write them, errors, logs, help, features, systemd's names."""

from __future__ import annotations

import json
import subprocess

import pytest
from helpers.bundle import COMMAND
from module_utils._engine.errors import UsageError
from module_utils._engine.oci import argv, control, events, main, seal, systemd, update, verbs


@pytest.mark.parametrize(
    "words",
    [
        ["--bundle", "/b", "id"],
        ["--bundle=/b", "id"],
        ["-b", "/b", "id"],
        ["-b=/b", "id"],
        ["-bundle", "/b", "--", "id"],
    ],
)
def test_options_are_understood_in_all_their_spellings(words):
    values, rest = argv.parse(words, verbs.VERBS["create"].options)
    assert values["bundle"] == "/b" and rest == ["id"] and values["preserve-fds"] == 0


def test_options_end_at_the_first_word_so_that_a_programs_own_are_left_alone():
    values, rest = argv.parse(["-e", "A=1", "--env=B=2", "-d", "id", "ls", "-l"], verbs.VERBS["exec"].options)
    assert values["env"] == ["A=1", "B=2"] and values["detach"] is True and rest == ["id", "ls", "-l"]


@pytest.mark.parametrize("words", [["--nope", "id"], ["--bundle"], ["--preserve-fds", "x"], ["--no-pivot=perhaps"]])
def test_options_nobody_knows_and_values_that_are_none_are_refused(words):
    with pytest.raises(UsageError):
        argv.parse(words, verbs.VERBS["create"].options)


def test_flags_may_be_told_true_or_false():
    values, _rest = argv.parse(["--force=false", "id"], verbs.VERBS["delete"].options)
    assert values["force"] is False


def test_errors_are_logged_in_json_where_callers_read_them(tmp_path, capsys):
    log = tmp_path / "log.json"
    root = str(tmp_path / "root")
    assert main.main(["--log", str(log), "--log-format", "json", "--root", root, "state", "nobody"]) == 1
    line = json.loads(log.read_text())
    assert line["level"] == "error" and "does not exist" in line["msg"] and line["time"].endswith("Z")
    assert "does not exist" in capsys.readouterr().err


def test_errors_without_a_log_go_to_standard_error_as_text(tmp_path, capfd):
    assert main.main(["--root", str(tmp_path), "state", 'no"body']) == 1
    shown = capfd.readouterr().err
    assert "level=error" in shown and '\\"' in shown


def test_exec_goes_on_in_a_sealed_interpreter_with_the_same_command_line(tmp_path):
    """Not by calling ``main`` here: it would execute the tests anew."""
    argv = [*COMMAND, "--root", str(tmp_path), "--log-format=json", "exec", "-e", "A=b c", "no-body", "true"]
    result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 255
    line = json.loads(result.stderr)
    assert line["level"] == "error" and "no-body does not exist" in line["msg"]


@pytest.mark.parametrize(
    "words", [["frobnicate"], ["state"], ["state", "a", "b"], ["--log-format", "xml", "list"], ["checkpoint", "x"]]
)
def test_wrong_commands_fail_with_a_sentence(words, tmp_path, capfd):
    assert main.main(["--root", str(tmp_path), *words]) == 1
    assert "level=error" in capfd.readouterr().err


def test_help_names_every_verb_and_every_option(capsys):
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in verbs.VERBS)
    for name, verb in verbs.VERBS.items():
        assert main.main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all("--" + option.name in shown for option in verb.options)


def test_version_and_features_say_which_specification(capsys):
    assert main.main(["--version"]) == 0
    assert "spec: %s\n" % main.SPEC in capsys.readouterr().out
    assert main.main(["features"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ociVersionMax"] == main.SPEC and "poststop" in found["hooks"] and "rro" in found["mountOptions"]
    assert "SCMP_ACT_NOTIFY" in found["linux"]["seccomp"]["actions"] and found["linux"]["cgroup"]["v2"] is True
    assert found["linux"]["selinux"]["enabled"] is False and "time" in found["linux"]["namespaces"]


def test_spec_writes_a_config_once(tmp_path, capfd):
    assert main.main(["spec", "--bundle", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "config.json").read_text())["process"]["args"] == ["sh"]
    assert main.main(["spec", "--bundle", str(tmp_path)]) == 1
    assert "Remove it first" in capfd.readouterr().err


@pytest.mark.parametrize("word,number", [("TERM", 15), ("SIGKILL", 9), ("9", 9), ("usr1", 10), ("RTMIN+3", 37)])
def test_signals_have_names_and_numbers(word, number):
    assert control.signal_number(word) == number


@pytest.mark.parametrize("word", ["", "NOPE", "65", "-9", "SIG_IGN", "KILL+1", "RTMIN+99"])
def test_what_is_no_signal_is_refused(word):
    with pytest.raises(UsageError):
        control.signal_number(word)


def test_sizes_and_durations_have_units():
    assert [update.size(text, "m") for text in ("-1", "1048576", "64m", "1GiB", "2k")] == [
        -1,
        1 << 20,
        64 << 20,
        1 << 30,
        2048,
    ]
    assert [events.interval(text) for text in ("5s", "500ms", "1m", "3")] == [5.0, 0.5, 60.0, 3.0]
    for bad in ("", "x", "-1s", "0"):
        with pytest.raises(UsageError):
            events.interval(bad)


def test_slices_lie_in_their_parents_and_scopes_have_their_prefix():
    assert systemd.expand("system.slice") == "system.slice"
    assert systemd.expand("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice" and systemd.expand("-.slice") == ""
    assert systemd.parse("machine.slice:libpod:abc", "x") == ("machine.slice", "libpod-abc.scope")
    assert systemd.parse("", "x") == ("system.slice", "wharf-oci-x.scope")
    for bad in ("/a/b", "a:b", "x:y:z", "a--b.slice:p:n", "s.slice:p:../x"):
        with pytest.raises(UsageError):
            systemd.parse(bad, "x")


def test_the_scope_is_asked_for_with_delegation_and_its_first_process():
    words = systemd.command("system.slice", "runc-x.scope", "x", 42)
    assert words[:3] == ["busctl", "--system", "call"] and words[6:8] == ["StartTransientUnit", "ssa(sv)a(sa(sv))"]
    assert words[8:11] == ["runc-x.scope", "fail", "6"]
    at = words.index("Delegate")
    assert words[at + 1 : at + 3] == ["b", "true"] and words[-5:] == ["PIDs", "au", "1", "42", "0"]


def test_a_start_is_sealed_where_others_are_in_its_pid_namespace_or_its_files(tmp_path):
    own = {"pid": ""}
    (tmp_path / "file").write_text("")
    file = {"destination": "/f", "type": "bind", "source": "file", "options": ["bind"]}
    volume = {"destination": "/v", "type": "none", "source": str(tmp_path), "options": ["rbind", "ro"]}
    tmpfs = {"destination": "/t", "type": "tmpfs", "source": "tmpfs"}
    assert not seal.needed_for_start({"mounts": [file, tmpfs]}, str(tmp_path), own)
    assert seal.needed_for_start({"mounts": [file, volume]}, str(tmp_path), own)
    assert seal.needed_for_start({}, str(tmp_path), {"pid": "/proc/1/ns/pid"})
    assert seal.needed_for_start({}, str(tmp_path), {})
