# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine that tasks of the integration tests run on: this one, or another one over ssh.

``WHARF_TEST_INVENTORY`` names an Ansible inventory (JSON, as ``python -m lab inventory debian13b`` prints it) with that
machine; its user may become root with sudo. Files have the same names on both: a test writes one here and says
``target.put(path)``. Whatever looks at the machine itself is a function of ``helpers.at_target``, and runs there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from .private_network import private_network

_HERE = os.path.dirname(os.path.abspath(__file__))
_PATIENCE = 1800  # seconds; the lab's processors are emulated


class Target:
    """This machine. Tests have a network of their own on it."""

    far = False
    patience = 180  # seconds that a play may take

    @property
    def variables(self) -> dict[str, Any]:
        """Ansible's, of the host."""
        return {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}

    @property
    def play(self) -> dict[str, Any]:
        """Keywords of every play."""
        return {}

    def call(self, function: str, *arguments: Any, module: str = "at_target") -> Any:
        """A function of ``helpers.at_target``, or of another module that imports nothing of ours, as root there."""
        return getattr(import_module("helpers." + module), function)(*arguments)

    def sh(self, script: str) -> str:
        """The output of a shell script that must succeed."""
        done = self.call("sh", script)
        assert done["rc"] == 0, (script, done)
        return str(done["stdout"])

    def put(self, path: Any) -> None:
        """Have a file or directory of this machine on the target, under the same name."""

    @contextlib.contextmanager
    def reach(self, port: int) -> Iterator[None]:
        """Within, the target reaches what listens at this machine's 127.0.0.1:PORT at its own."""
        yield

    def network(self) -> contextlib.AbstractContextManager[None]:
        """Within, tests may do to the network what they like."""
        return private_network()

    def close(self) -> None:
        pass


class FarTarget(Target):
    """Another machine, which nobody else uses."""

    far = True
    patience = _PATIENCE

    def __init__(self, inventory: str) -> None:
        with open(inventory) as stream:
            ((self.name, found),) = json.load(stream)["all"]["hosts"].items()
        self._variables: dict[str, Any] = found
        self._sockets = tempfile.mkdtemp(prefix="wt-ssh")  # short: a socket's path may have 107 bytes
        self._ssh = [
            "ssh", "-o", "ControlMaster=auto", "-o", "ControlPath=%s/master" % self._sockets,
            "-o", "ControlPersist=600", "-o", "BatchMode=yes", "-o", "ConnectTimeout=120",
            "-p", str(found["ansible_port"]), "-i", found["ansible_ssh_private_key_file"],
            *shlex.split(found["ansible_ssh_common_args"]), "%(ansible_user)s@%(ansible_host)s" % found,
        ]  # fmt: skip

    @property
    def variables(self) -> dict[str, Any]:
        return {**self._variables, "ansible_connection": "ssh", "ansible_control_path_dir": self._sockets}

    @property
    def play(self) -> dict[str, Any]:
        return {"become": True}

    def call(self, function: str, *arguments: Any, module: str = "at_target") -> Any:
        with open("%s/%s.py" % (_HERE, module)) as stream:
            source = stream.read()
        source += "\nimport json\nprint(json.dumps(%s(*json.loads(%r)), default=sorted))\n" % (
            function,
            json.dumps(arguments),
        )
        done = self._run(["sudo python3 -I -"], source.encode())
        return json.loads(done.splitlines()[-1])

    def put(self, path: Any) -> None:
        packed = subprocess.run(["tar", "-C", "/", "-cf", "-", str(path).lstrip("/")], check=True, capture_output=True)
        self._run(["sudo tar -C / -xf -"], packed.stdout)

    @contextlib.contextmanager
    def reach(self, port: int) -> Iterator[None]:
        self._run(["true"], b"")  # the connection that carries it
        way = "127.0.0.1:%d:127.0.0.1:%d" % (port, port)
        self._control("forward", "-R", way)
        try:
            yield
        finally:
            self._control("cancel", "-R", way)

    def network(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # the machine's own is theirs

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # nothing was asked, or it left by itself
            self._control("exit")
        for name in os.listdir(self._sockets):  # ansible-playbook's
            master = [*self._ssh[:-1], "-o", "ControlPath=%s/%s" % (self._sockets, name), "-O", "exit", self._ssh[-1]]
            subprocess.run(master, check=False, capture_output=True)
        with contextlib.suppress(OSError):
            os.rmdir(self._sockets)

    def _control(self, command: str, *options: str) -> None:
        argv = [*self._ssh[:-1], "-O", command, *options, self._ssh[-1]]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE)

    def _run(self, command: list[str], data: bytes) -> bytes:
        done = subprocess.run([*self._ssh, *command], input=data, capture_output=True, timeout=_PATIENCE, check=False)
        if done.returncode:
            raise AssertionError("%s: %s: %s" % (self.name, command, done.stderr.decode(errors="replace")[-4000:]))
        return done.stdout


def _chosen() -> Target:
    inventory = os.environ.get("WHARF_TEST_INVENTORY")
    return FarTarget(inventory) if inventory else Target()


TARGET = _chosen()
