# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import socket
import time

import pytest
from module_utils._engine.errors import Conflict, StartError
from module_utils._engine.runtime import logs


def test_a_program_runs_and_its_output_is_logged(engine):
    state, out, err = engine.sh("echo hello; echo oops >&2; exit 3")
    assert (out, err) == ("hello\n", "oops\n")
    assert state["exit_code"] == 3 and state["status"] == "exited"


def test_the_exit_code_of_a_signal_is_128_plus_its_number(engine):
    cid = engine.start("sleep 100")
    engine.runtime.kill(cid, 9)
    assert engine.runtime.wait(cid, timeout=5)["exit_code"] == 137


def test_the_exit_code_is_recorded_when_init_dies_at_once(engine):
    for _n in range(5):
        state, _out, _err = engine.run(["/bin/false"])
        assert state["exit_code"] == 1


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/nosuch"], 127, 'exec: "/nosuch": stat /nosuch: no such file or directory'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
        (["/tmp"], 126, 'exec: "/tmp": is a directory'),
        (["/etc/passwd/x"], 127, 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
        (["/proc/self/exe"], 126, "refusing to execute the engine's own interpreter"),
    ],
)
def test_a_program_that_cannot_be_executed_has_dockers_words_and_exit_code(engine, command, code, words):
    cid = engine.create(command)
    with pytest.raises(StartError) as caught:
        engine.runtime.start(cid)
    assert words in caught.value.msg
    assert caught.value.details["exit_code"] == code
    assert engine.leavings(cid) == []
    state = engine.runtime.state(cid)
    assert state["status"] == "created" and state["exit_code"] == code and words in state["error"]


def test_a_script_whose_interpreter_is_our_own_is_refused(engine):
    cid = engine.create(["/evil"])
    upper = engine.paths.container(cid) + "/upper"
    os.makedirs(upper)
    with open(upper + "/evil", "w") as stream:
        stream.write("#!/proc/self/exe\n")
    os.chmod(upper + "/evil", 0o755)
    with pytest.raises(StartError, match="CVE-2019-5736"):
        engine.runtime.start(cid)


def test_a_script_without_its_interpreter_is_not_found(engine):
    cid = engine.create(["/script"])
    upper = engine.paths.container(cid) + "/upper"
    os.makedirs(upper)
    with open(upper + "/script", "w") as stream:
        stream.write("#!/no/interpreter\n")
    os.chmod(upper + "/script", 0o755)
    with pytest.raises(StartError, match="no such file or directory") as caught:
        engine.runtime.start(cid)
    assert caught.value.details["exit_code"] == 127 and "interpreter" in caught.value.hint


def test_a_missing_bind_source_names_both_ends_and_leaves_nothing(engine):
    volume = {"source": "/no/such/dir", "target": "/data", "read_only": False, "type": "bind"}
    cid = engine.create(["/bin/true"], volumes=[volume])
    with pytest.raises(StartError, match="Cannot mount /no/such/dir on /data") as caught:
        engine.runtime.start(cid)
    assert caught.value.errno == 2
    assert engine.leavings(cid) == []


def test_starting_twice_is_starting_once(engine):
    cid = engine.start("sleep 100")
    assert engine.runtime.start(cid)["pid"] == engine.runtime.state(cid)["pid"]


def test_nothing_is_left_behind_after_the_end(engine):
    state, _out, _err = engine.sh("sleep 100 & exec true")
    cid = engine.ids[-1]
    engine.runtime._wait_unlocked(cid)
    assert engine.leavings(cid) == []
    assert state["pid"] == 0


def test_the_upper_keeps_what_was_written_between_starts(engine):
    cid = engine.create(["/bin/sh", "-c", "cat /note 2>/dev/null; echo again >> /note"])
    for _n in range(2):
        engine.runtime.start(cid)
        engine.runtime.wait(cid, timeout=5)
    assert engine.output(cid) == "again\n"


def test_a_reserved_port_refuses_others_and_is_freed_at_the_end(engine):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    reserve = [{"host_ip": "", "port": port, "protocol": "tcp"}]
    cid = engine.start("sleep 100", run={"reserve": reserve})
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    second = engine.create(["/bin/true"], run={"reserve": reserve})
    with pytest.raises(Conflict, match="Bind for 0.0.0.0:%d failed: port is already allocated" % port):
        engine.runtime.start(second)
    assert engine.leavings(second) == []
    engine.runtime.stop(cid, timeout=0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_a_terminal_is_a_terminal(engine):
    state, out, _err = engine.sh(
        "tty; test -t 0 && test -t 1 && echo yes; ls -l /dev/console | cut -c1; exit 4", tty=True
    )
    assert "/dev/" in out and "yes\r\n" in out
    assert state["exit_code"] == 4


def test_standard_input_stays_open_when_interactive(engine):
    cid = engine.start("read line; echo got $line", interactive=True)
    with open(engine.paths.container_run(cid) + "/stdin", "w") as stream:
        stream.write("this\n")
    engine.runtime.wait(cid, timeout=5)
    assert engine.output(cid) == "got this\n"


def test_output_of_a_fast_writer_is_complete_and_in_order(engine):
    _state, out, _err = engine.sh("seq 1 200000")
    assert out == "".join("%d\n" % n for n in range(1, 200001))


def test_logs_rotate(engine):
    cid = engine.create(["/bin/seq", "1", "3000"])
    directory = engine.paths.container(cid)
    with open(directory + "/run.json") as stream:
        run = json.load(stream)
    run["log"].update(max_size=20000, max_file=3)
    with open(directory + "/run.json", "w") as stream:
        json.dump(run, stream)
    engine.runtime.start(cid)
    engine.runtime.wait(cid, timeout=10)
    names = logs.files(directory + "/log")
    assert len(names) == 3 and all(os.path.getsize(name) <= 20000 for name in names)
    kept = [int(r["log"]) for r in logs.read(directory + "/log")]
    assert kept == list(range(kept[0], 3001))


def test_the_reaper_forwards_signals_and_reaps_orphans(engine):
    script = "trap 'echo term; exit 7' TERM; (sleep 0.05 &) ; echo pid $$; while :; do sleep 0.05; done"
    cid = engine.start(script, init=True)
    engine.until(lambda: "pid" in engine.output(cid))
    time.sleep(0.2)
    listing = engine.exec(cid, "ps", "-o", "pid,stat,comm").stdout.decode()
    assert " Z" not in listing
    assert engine.exec(cid, "cat", "/proc/1/cmdline").stdout.strip(b"\0") == b"init"
    assert engine.paths.state not in engine.exec(cid, "ps", "-o", "pid,args").stdout.decode()
    assert "pid 2\n" in engine.output(cid)
    state = engine.runtime.stop(cid, timeout=5)
    assert state["exit_code"] == 7 and "term" in engine.output(cid)


def test_the_reaper_reports_a_program_that_cannot_be_executed(engine):
    cid = engine.create(["nosuch"], init=True)
    with pytest.raises(StartError, match="executable file not found"):
        engine.runtime.start(cid)
    assert engine.leavings(cid) == []


def test_the_monitor_reports_who_was_killed_for_lack_of_memory(engine):
    script = "x=a; while :; do x=$x$x; done"
    cid = engine.start(script, memory=16 << 20, memory_swap=16 << 20)
    state = engine.runtime.wait(cid, timeout=20)
    assert state["exit_code"] == 137 and state["oom_killed"]


def test_hooks_run_once_the_container_has_ended(engine, tmp_path):
    mark = tmp_path / "mark"
    engine.sh("true", run={"on_exit": [["/nosuch/program"], ["/bin/sh", "-c", "echo done >> %s" % mark]]})
    engine.runtime._wait_unlocked(engine.ids[-1])
    assert mark.read_text() == "done\n"


def test_six_mebibytes_are_enough_to_start_in(engine):
    cid = engine.start("sleep 100", memory=6 << 20, memory_swap=6 << 20)
    assert engine.exec(cid, "echo", "hi").stdout == b"hi\n"
    assert not engine.runtime.state(cid)["oom_killed"]


def test_one_process_more_than_none_is_allowed_by_a_pids_limit(engine):
    cid = engine.create(["/bin/sh", "-c", "true & true & true & wait; echo end; exec sleep 100"], pids_limit=1)
    engine.runtime.start(cid)
    engine.until(lambda: "can't fork" in engine.output(cid, "stderr"))


def test_the_log_can_be_changed_while_it_is_written(engine):
    cid = engine.start("i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i; sleep 0.01; done")
    path = engine.paths.container(cid) + "/log"
    for size in (None, 1000, 500):
        log = {"driver": "json-file", "path": path, "max_size": size, "max_file": 20, "attrs": {"size": str(size)}}
        engine.runtime.update(cid, {"log": log})
        time.sleep(0.1)
    engine.runtime.wait(cid, timeout=10)
    assert [int(line) for line in engine.output(cid).split()] == list(range(1, 51))


def test_state_of_what_never_was_is_created(engine):
    assert engine.runtime.state("0" * 64)["status"] == "created"
    engine.runtime.delete("0" * 64)
