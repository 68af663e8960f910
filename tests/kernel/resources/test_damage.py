# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file of one container is cut off, empty or nonsense: that one is repaired or told, and the others go on."""

from __future__ import annotations

import json
import os

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP
from module_utils._engine.errors import StartError
from module_utils._engine.runtime.client import Runtime

DAMAGE = {
    "empty": b"",
    "cut off": b'{"status": "runn',
    "no object": b"[1, 2]",
    "nonsense": b"\0\xff\xfe not json",
    "of a later version": b'{"version": 99, "schema": 99}',
}


@pytest.mark.parametrize("file", ["state.json", "config.json", "run.json"])
@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_a_damaged_file_of_one_container_stops_no_other_and_the_next_task_repairs_it(
    shared: Engine, file: str, kind: str
) -> None:
    name = "hurt"
    task = {"command": SLEEP, "labels": {"file": file, "kind": kind}}
    shared.container(name, **task)
    shared.container("well", command=SLEEP)
    well = shared.pid("well")
    identity = shared.inspect(name)["Id"]
    path = "%s/%s" % (shared.paths.container(identity), file)
    with open(path, "wb") as stream:
        stream.write(DAMAGE[kind])
    listed = {shown["Name"] for shown in shared.run("container_info")["containers"]}
    assert {"/" + name, "/well"} <= listed
    assert shared.sh("well", "echo fine") == "fine" and shared.pid("well") == well
    pid = shared.pid(name)
    if file == "config.json":
        with pytest.raises(StartError, match=r"config\.json is damaged") as caught:
            shared.exec(name, "true")
        assert "restart" in str(caught.value.hint)
        shared.container(name, **task, restart=True)
    else:
        shared.container(name, **task)
        assert shared.pid(name) == pid  # nothing ended for it
    assert shared.sh(name, "echo back") == "back"
    with open("%s/%s" % (shared.paths.container(identity), "state.json")) as stream:
        assert json.load(stream)["status"] == "running"
    shared.run("container", name=name, state="absent", force_kill=True)
    assert not os.path.exists(os.path.dirname(path))


@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_a_stopped_container_with_a_damaged_file_starts_from_what_is_stored(shared: Engine, kind: str) -> None:
    shared.container("hurt-stopped", command=SLEEP)
    shared.run("container", name="hurt-stopped", state="stopped", force_kill=True)
    identity = shared.inspect("hurt-stopped")["Id"]
    Runtime(shared.paths).state(identity)
    for file in ("config.json", "run.json", "state.json"):
        with open("%s/%s" % (shared.paths.container(identity), file), "wb") as stream:
            stream.write(DAMAGE[kind])
    shared.run("container", name="hurt-stopped", state="started")
    assert shared.sh("hurt-stopped", "echo back") == "back"
    shared.run("container", name="hurt-stopped", state="absent", force_kill=True)
