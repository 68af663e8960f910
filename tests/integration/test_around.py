# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copying, killing, pausing, renaming, restarting and waiting through real playbooks."""

from __future__ import annotations

from pathlib import Path

from helpers.engine import busybox_tar
from helpers.playbook import Host, refused, task
from helpers.target import TARGET


def test_what_a_playbook_does_to_a_container_it_has(fresh: Host, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>one</h1>\n")
    busybox_tar(str(tmp_path / "busybox.tar"))
    TARGET.put(tmp_path)
    copy = task("copy", "container_copy", container="web", path=str(tmp_path / "site"), container_path="/srv/site")
    secret = {"container": "web", "content": "hunter2-in-a-file", "container_path": "/srv/key", "mode": "0600"}
    run = fresh.play(
        [
            task("base", "image", name="bb:1", source="import", path=str(tmp_path / "busybox.tar"), changes=["CMD sh"]),
            task("made", "container", name="web", image="bb:1", command=["sleep", "1000"], stop_timeout=0),
            copy,
            {**copy, "name": "copy again"},
            task("key", "container_copy", **secret),
            refused("both", "container_copy", **{**secret, "path": "/etc/passwd"}),
            refused("no parent", "container_copy", **{**secret, "container_path": "/no/where"}),
            task(
                "fetch",
                "container_copy",
                container="web",
                direction="from",
                container_path="/srv/site",
                path=str(tmp_path / "fetched"),
            ),
            task("exec", "container_exec", container="web", command="stat -c %a /srv/key", privileged=True),
            task("pause", "container_pause", container="web"),
            task("go on", "container_pause", container="web", paused=False),
            task("restart", "container_restart", container="web"),
            task("rename", "container_rename", container="web", name="site"),
            task("wait", "container_wait", container="site", condition="healthy"),
            task("kill", "container_kill", container="site", signal="SIGKILL"),
            task("ended", "container_wait", container="site"),
            refused("kill again", "container_kill", container="site"),
        ],
        "--diff",
    )
    assert run.ok and run["copy"]["changed"] and not run["copy again"]["changed"]
    assert "+<h1>one</h1>" in run.output
    assert run["key"]["changed"] and "hunter2" not in run.output
    assert "mutually exclusive" in run["both"]["msg"]
    assert "The directory /no does not exist in container web" in run.failure("no parent")["msg"]
    assert TARGET.call("read", str(tmp_path / "fetched/index.html")) == "<h1>one</h1>\n"
    assert run["exec"]["stdout"] == "600"
    assert run["pause"]["changed"] and run["go on"]["changed"] and run["restart"]["container"]["State"]["Running"]
    assert run["rename"]["name"] == "site" and run["wait"]["status"] == "running"
    assert run["ended"]["exit_code"] == 137
    assert run.failure("kill again")["error"]["kind"] == "conflict"
