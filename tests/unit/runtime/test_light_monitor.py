# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What keeps a monitor small: it is handed what it needs, and makes nothing before something happens."""

from __future__ import annotations

import ast
import os
import socket
import threading

import pytest
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.runtime import handover, stdio, watch
from module_utils._engine.runtime.kept import Kept
from module_utils._engine.runtime.loop import Loop


def open_null() -> int:
    return os.open("/dev/null", os.O_RDONLY)


@pytest.mark.parametrize("count", [0, 1, 240, 241, 400])
def test_a_handover_brings_values_and_any_number_of_descriptors_in_order(count):
    ours, theirs = socket.socketpair()
    pipes = [os.pipe() for _n in range(2)]
    fds = [pipes[n % 2][1] for n in range(count)]
    values = {"id": "a" * 64, "large": ["x" * 1000] * 500, "none": None}
    sender = threading.Thread(target=handover.send, args=(theirs, values, fds))
    sender.start()
    got, received = handover.receive(ours)
    sender.join()
    assert got == values and len(received) == count
    ends = [os.fstat(end).st_ino for _read, end in pipes]
    assert [os.fstat(fd).st_ino for fd in received] == [ends[n % 2] for n in range(count)]
    assert not any(os.get_inheritable(fd) for fd in received)
    for fd in [*received, *pipes[0], *pipes[1]]:
        os.close(fd)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("sent", [b"", b"\x10\0\0\0", b"\x10\0\0\0\0\0\0\0half"])
def test_a_starter_that_dies_before_it_has_handed_over_has_handed_over_nothing(sent):
    ours, theirs = socket.socketpair()
    theirs.sendall(sent)
    theirs.close()
    assert handover.receive(ours) is None
    ours.close()


def test_what_a_monitor_runs_at_rest_imports_neither_json_nor_ctypes():
    for module in (watch, handover):
        with open(module.__file__, encoding="utf-8") as stream:
            tree = ast.parse(stream.read())
        names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"json", "ctypes", "struct"}, module.__name__
    # The whole monitor is made on demand, inside a function.
    assert "Monitor" not in vars(watch) and "Control" not in vars(watch)


def test_the_log_is_opened_when_the_container_says_something(tmp_path):
    loop = Loop()
    read, write = os.pipe()
    os.set_blocking(read, False)
    run = {"log": {"driver": "json-file", "path": str(tmp_path / "log"), "max_size": None, "max_file": 1}}
    streams = stdio.Stdio(Kernel(), loop, str(tmp_path), run, {"stdout": read})
    assert streams.pump is None and not (tmp_path / "log").exists()
    assert streams.held() == {"stdout": read}
    os.write(write, b"hello\n")
    loop.once()
    assert '"hello\\n"' in (tmp_path / "log").read_text()
    streams.close()
    os.close(write)


def test_the_spawner_keeps_one_descriptor_of_each_layer_and_program():
    kept = Kept()
    first, second, twice, program, again = (open_null() for _n in range(5))
    kept.learn({"layers": ["/a", "/b"], "devices": [b"code"], "programs": [("k", b"f")]}, [first, second, program])
    kept.learn({"layers": ["/a"], "devices": [b"code"], "programs": []}, [twice, again])
    assert kept.layers == {"/a": first, "/b": second} and kept.devices == {b"code": program}
    for fd in (twice, again):
        with pytest.raises(OSError):
            os.fstat(fd)
    kept.forget("/a")
    assert kept.descriptors() == [second, program] and kept.without_descriptors().descriptors() == []
    assert kept.without_descriptors().programs == {"k": b"f"}
    for fd in kept.descriptors():
        os.close(fd)
