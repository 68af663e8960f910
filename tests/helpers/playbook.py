# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real ``ansible-playbook`` runs against this machine (or another: see ``helpers.target``), with an engine in
directories of its own.

host = Host(collections, directory)
run = host.play([{"name": "make it", "wharf.engine.volume": {"name": "data"}}])
assert run.ok and run["make it"]["changed"]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import yaml

from .engine import Engine
from .target import TARGET

ROOT = Path(__file__).parents[2]
RECORDER = ROOT / "tests/integration/delivery/plugins/callback"

Task = dict[str, Any]


def install_tree(path: Path) -> Path:
    """The working tree where Ansible finds collections; returns what goes into ANSIBLE_COLLECTIONS_PATH."""
    tree = path / "ansible_collections/wharf/engine"
    subprocess.run([sys.executable, str(ROOT / "tools/tree.py"), str(tree)], check=True)
    return path


def task(title: str, module: str, /, **arguments: Any) -> Task:
    """One task of a module of the collection, with a title to find its result by."""
    return {"name": title, "wharf.engine." + module: arguments}


def refused(title: str, module: str, /, **arguments: Any) -> Task:
    """A task that is expected to fail."""
    return {**task(title, module, **arguments), "ignore_errors": True}


class Run:
    """What a play did: results by task name."""

    def __init__(self, code: int, lines: list[dict[str, Any]], output: str) -> None:
        self.code = code
        self.lines = lines
        self.output = output

    @property
    def ok(self) -> bool:
        if self.code:
            print(self.output[-6000:])  # pytest shows it with the failed assertion
        return self.code == 0

    def _line(self, name: str) -> dict[str, Any]:
        found = [line for line in self.lines if line["task"] == name]
        if len(found) != 1:
            raise AssertionError("%d results of task %r in:\n%s" % (len(found), name, self.output[-6000:]))
        return found[0]

    def __getitem__(self, name: str) -> dict[str, Any]:
        return dict(self._line(name)["result"])

    @property
    def changed(self) -> list[str]:
        """Names of the tasks that reported a change."""
        return [line["task"] for line in self.lines if line["result"].get("changed")]

    def failure(self, name: str) -> dict[str, Any]:
        """The result of a task that failed as the engine fails: one sentence, and an error a playbook can read."""
        result = self[name]
        shown = json.dumps(result, indent=1, default=str)[:4000]
        assert self._line(name)["event"] == "failed", shown
        assert "Traceback" not in result.get("exception", ""), shown
        sentence, error = result["msg"], result["error"]
        assert sentence and "\n" not in sentence and "Traceback" not in sentence, shown
        assert len(sentence) < 500, shown
        assert set(error) >= {"kind", "step", "subject", "path", "errno", "hint"}, shown
        assert error["kind"] not in ("error", "internal"), shown
        return result


class Host:
    """The target: one engine instance there, and playbooks that use it through ``module_defaults``."""

    def __init__(self, collections: Path, directory: Path, environment: Optional[dict[str, str]] = None) -> None:
        self.collections = collections
        self.directory = directory
        self.environment = environment or {}
        directory.mkdir(parents=True, exist_ok=True)
        TARGET.call("make_directory", str(directory))
        self.engine = Engine(str(directory), TARGET)
        self.paths = self.engine.paths
        self._runs = 0

    def play(self, tasks: list[Task], *arguments: str, **keywords: Any) -> Run:
        """Run ``tasks``; ``keywords`` are the play's, ``arguments`` those of ansible-playbook."""
        return self.finish(self.start(tasks, *arguments, **keywords))

    def start(self, tasks: list[Task], *arguments: str, **keywords: Any) -> tuple[subprocess.Popen[str], Path]:
        """The same in the background, for two at once."""
        self._runs += 1
        record = self.directory / ("record%d" % self._runs)
        playbook = self.directory / ("play%d.yml" % self._runs)
        defaults = {"group/wharf.engine.all": {"state_dir": self.paths.state, "run_dir": self.paths.run}}
        play = {
            "hosts": "this_machine",
            "gather_facts": False,
            "module_defaults": defaults,
            "environment": self.environment,
            "tasks": tasks,
            **TARGET.play,
            **keywords,
        }
        playbook.write_text(yaml.safe_dump([play], sort_keys=False))
        inventory = self.directory / "hosts.yml"
        inventory.write_text(yaml.safe_dump({"all": {"hosts": {"this_machine": TARGET.variables}}}))
        process = subprocess.Popen(
            [os.path.dirname(sys.executable) + "/ansible-playbook", "-i", str(inventory), str(playbook), *arguments],
            env=self._environment(record),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return process, record

    def finish(self, started: tuple[subprocess.Popen[str], Path]) -> Run:
        process, record = started
        try:
            output, _none = process.communicate(timeout=TARGET.patience)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _none = process.communicate()
            raise AssertionError("ansible-playbook does not end:\n" + output[-6000:]) from None
        lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        return Run(process.returncode, lines, output)

    def _environment(self, record: Path) -> dict[str, str]:
        return {
            "PATH": os.path.dirname(sys.executable) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.directory),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "tools/ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_CALLBACK_PLUGINS": str(RECORDER),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOST_KEY_CHECKING": "0",
            "WHARF_TEST_RECORD": str(record),
        }

    def left(self) -> dict[str, list[str]]:
        """What the engine still holds: {} when everything that tasks made is gone (the default network stays).
        Verified blobs of a pull that failed stay for the next one until they are collected, which is done here."""
        return dict(TARGET.call("left", self.paths.state, self.paths.run))

    def close(self) -> None:
        self.engine.close()
        if TARGET.far:
            TARGET.call("remove", str(self.directory))
