# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real ``ansible-playbook`` runs against this machine: local, over ssh, with several controllers and Pythons. Or
against another machine: see ``helpers.target``."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
import yaml
from helpers.target import TARGET

ROOT = Path(__file__).parents[3]
PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree where Ansible finds collections."""
    path = tmp_path_factory.mktemp("collections")
    tree = path / "ansible_collections/wharf/engine"
    subprocess.run([sys.executable, str(ROOT / "tools/tree.py"), str(tree)], check=True)
    return path


class Result(NamedTuple):
    code: int
    lines: list[dict[str, Any]]
    output: str

    def one(self, task: str) -> dict[str, Any]:
        """The only result of a task."""
        found = [line["result"] for line in self.lines if line["task"] == task]
        assert len(found) == 1, self.output
        return dict(found[0])

    @property
    def transfers(self) -> int:
        return self.output.count("wharf.engine: taking engine")


class Engine(NamedTuple):
    """The two directories of an engine of the test's own."""

    state: str
    run: str

    @property
    def bundles(self) -> list[str]:
        return [name for name in TARGET.call("names", self.state + "/engine") if len(name) == 64]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    run = TARGET.call("run_directory")
    TARGET.call("remove", run)
    yield Engine(str(tmp_path / "state"), run)
    TARGET.call("remove", run)
    TARGET.call("remove", str(tmp_path / "state"))


class Controller:
    """Runs playbooks with the ``ansible-playbook`` of one virtualenv."""

    def __init__(self, python: str, collections: Path, tmp: Path, engine: Engine) -> None:
        self.bin = os.path.dirname(python)
        self.collections = collections
        self.tmp = tmp
        self.engine = engine
        self.env: dict[str, str] = {}
        self._runs = 0

    def play(
        self,
        tasks: list[dict[str, Any]],
        *arguments: str,
        hosts: Optional[dict[str, dict[str, Any]]] = None,
        **keywords: Any,
    ) -> Result:
        """Run ``tasks`` on ``hosts`` ({name: variables}; the target unless given)."""
        self._runs += 1
        record = self.tmp / ("record%d" % self._runs)
        inventory, playbook = self.tmp / "hosts.yml", self.tmp / "play.yml"
        inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts or {"this_machine": TARGET.variables}}}))
        defaults = {"group/wharf.engine.all": {"state_dir": self.engine.state, "run_dir": self.engine.run}}
        play = {"hosts": "all", "gather_facts": False, "module_defaults": defaults, "tasks": tasks}
        play.update({**({} if hosts else TARGET.play), **keywords})
        playbook.write_text(yaml.safe_dump([play]))
        done = subprocess.run(
            [self.bin + "/ansible-playbook", "-vv", "-i", str(inventory), str(playbook), *arguments],
            env=self._environment(record),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TARGET.patience + 60,
            check=False,
        )
        lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
        return Result(done.returncode, lines, done.stdout)

    def _environment(self, record: Path) -> dict[str, str]:
        return {
            "PATH": self.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": os.path.expanduser("~"),
            "ANSIBLE_HOME": str(self.tmp / "home"),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "tools/ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_CALLBACK_PLUGINS": str(PLUGINS / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_HOST_KEY_CHECKING": "0",
            "WHARF_TEST_RECORD": str(record),
            **self.env,
        }


@pytest.fixture
def controller(collections: Path, tmp_path: Path, engine: Engine) -> Controller:
    return Controller(sys.executable, collections, tmp_path, engine)


# --- other Pythons and other controllers ------------------------------------------------------------------------------


def find_pythons() -> dict[str, str]:
    """``{"3.9": path}`` of the interpreters on this machine: the system's, and pyenv's, if there is one."""
    patterns = ["/usr/bin/python3.*", "/usr/local/bin/python3.*"]
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    patterns.append(pyenv + "/versions/*/bin/python3")
    found: dict[str, str] = {}
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):
        if re.search(r"(-config|\.py|-dbg)$", path):
            continue
        asked = subprocess.run(
            [path, "-c", "import sys, zlib, ctypes, sqlite3; print('%d.%d' % sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        if asked.returncode == 0:
            found.setdefault(asked.stdout.strip(), path)
    return found


@pytest.fixture(scope="session")
def pythons() -> dict[str, str]:
    return find_pythons()


def make_venv(python: str, name: str, *packages: str) -> str:
    """Path of the Python of a virtualenv with ``packages`` and the pinned requirements; kept between test runs."""
    directory = ROOT / ".build/venvs" / name
    stamp = directory / ".complete"
    if not stamp.exists():
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(directory)], check=True)
        command = [str(directory / "bin/python"), "-m", "pip", "install", "-q", "-r", str(ROOT / "requirements.txt")]
        done = subprocess.run(
            [*command, *packages], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            pytest.skip("pip cannot install %s: %s" % (" ".join(packages), done.stdout[-300:]))
        stamp.touch()
    return str(directory / "bin/python")


# --- ssh --------------------------------------------------------------------------------------------------------------


class Sshd(NamedTuple):
    user: str
    variables: dict[str, Any]


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """A real sshd on 127.0.0.1 with a user of its own who is no root and may use sudo. Everything is removed after."""
    for program in ("sshd", "sudo", "useradd", "ssh-keygen"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip("%s is missing (apt-get install openssh-server sudo passwd)" % program)
    if os.geteuid() != 0:
        pytest.skip("making a user and an sshd needs root")
    directory = Path(tempfile.mkdtemp(prefix="wharf-sshd-"))
    directory.chmod(0o755)  # the user's home is in it, and pytest's own directories are root's alone
    user = "wharf%d" % os.getpid()
    sudoers = Path("/etc/sudoers.d/" + user)
    home = directory / "home"
    subprocess.run(["useradd", "--home-dir", str(home), "--create-home", "--shell", "/bin/sh", user], check=True)
    server: Optional[subprocess.Popen[bytes]] = None
    try:
        subprocess.run(["usermod", "-p", "*", user], check=True)  # no password, but not locked either
        sudoers.write_text("%s ALL=(ALL) NOPASSWD: ALL\n" % user)
        sudoers.chmod(0o440)
        port, server = _start_sshd(directory, user)
        variables = {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": port,
            "ansible_user": user,
            "ansible_ssh_private_key_file": str(directory / "key"),
            "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR",
            "ansible_control_path_dir": tempfile.gettempdir(),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        yield Sshd(user, variables)
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(10)
        _end_processes_of(user)
        sudoers.unlink(missing_ok=True)
        subprocess.run(["userdel", "--remove", user], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(directory)


def _start_sshd(directory: Path, user: str) -> tuple[int, subprocess.Popen[bytes]]:
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True)
    shutil.copy(directory / "key.pub", directory / "authorized_keys")
    (directory / "authorized_keys").chmod(0o644)
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = directory / "sshd_config"
    config.write_text(
        "\n".join(
            (
                "ListenAddress 127.0.0.1:%d" % port,
                "HostKey %s/host_key" % directory,
                "PidFile %s/pid" % directory,
                "AuthorizedKeysFile %s/authorized_keys" % directory,
                "AllowUsers %s" % user,
                "StrictModes no",
                "UsePAM no",
                "PasswordAuthentication no",
                "Subsystem sftp internal-sftp",
            )
        )
        + "\n"
    )
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin") or "sshd"
    server = subprocess.Popen([program, "-D", "-e", "-f", str(config)], stderr=open(directory / "log", "wb"))
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port, server
        except OSError:
            if time.monotonic() > deadline or server.poll() is not None:
                server.kill()
                pytest.fail("sshd does not start: " + (directory / "log").read_text())
            time.sleep(0.05)


def _end_processes_of(user: str) -> None:
    """The ssh master connection's far end outlives the test; by process ID, and only of the test's own user."""
    import pwd

    uid = pwd.getpwnam(user).pw_uid
    for _attempt in range(50):
        mine = [int(name) for name in os.listdir("/proc") if name.isdigit() and _owner(name) == uid]
        for pid in mine:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not mine:
            return
        time.sleep(0.05)


def _owner(pid: str) -> int:
    try:
        return os.stat("/proc/" + pid).st_uid
    except OSError:
        return -1
