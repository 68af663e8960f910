# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One virtual machine: start, restore, cut its power, reach it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from typing import Any, Optional

from . import images
from .images import LabError
from .machines import Machine

_SNAPSHOT = "ready"
# On a busy host the machine stands still for minutes: no reason for its systemd to kill what was slow, or to give up.
_ARGUMENTS = (
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet panic=5 systemd.service_watchdogs=no"
    " systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900"
)
_BOOT = 900.0  # seconds; an emulated processor on a busy machine


class Guest:
    """``bound``: the machine goes off when this process ends, even when it is killed."""

    def __init__(self, machine: Machine, *, bound: bool = False) -> None:
        self.machine = machine
        self.bound = bound
        self.directory = images.directory(machine)

    # -- life ----------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Running and as fresh as after its first boot, whatever was done to it before."""
        if not images.is_current(self.machine):
            self.down()
            images.ensure(self.machine)
        fresh = not self._has_snapshot()
        if self.pid() is None:
            self._launch([] if fresh else ["-loadvm", _SNAPSHOT])
        elif not fresh:
            self.monitor("loadvm " + _SNAPSHOT)
        self.wait()
        if fresh:  # also when the last attempt did not have the patience for the first boot
            self.ssh("until systemctl is-system-running | grep -Eq 'running|degraded'; do sleep 1; done")
            self.ssh("sync")
            self.monitor("savevm " + _SNAPSHOT)
        self.ssh("sudo date -u -s @%d >/dev/null" % (time.time() + 1))

    def down(self) -> None:
        """Off, without being asked. Whatever the disk holds then is thrown away by the next ``up``."""
        for how in (lambda _pid: self._qmp("quit"), lambda pid: os.kill(pid, signal.SIGKILL)):
            pid = self.pid()
            if pid is None:
                return
            with contextlib.suppress(OSError, LabError):
                how(pid)
            deadline = time.monotonic() + 60
            while self.pid() is not None and time.monotonic() < deadline:
                time.sleep(0.1)
        if self.pid() is not None:
            raise LabError("QEMU of %s does not end" % self.machine.name)

    def cut_power(self) -> None:
        """The power is gone for a moment: memory is lost, the disk keeps what reached it. Returns when ssh answers."""
        self._qmp("system_reset")
        time.sleep(2)
        self.wait()

    def boot_id(self) -> str:
        """Another one after each boot; "" while it does not answer."""
        try:
            return self.ssh("cat /proc/sys/kernel/random/boot_id", check=False, timeout=120).stdout.strip()
        except LabError:
            return ""

    def await_boot(self, before: str) -> None:
        """Until it has booted since ``before``, a ``boot_id``: it resets itself at a moment of its own."""
        deadline = time.monotonic() + 2 * _BOOT
        while self.boot_id() in ("", before):
            if self.pid() is None or time.monotonic() > deadline:
                raise LabError("%s did not reset itself:\n%s" % (self.machine.name, self._tail("console.log")))
            time.sleep(2)

    def answers(self) -> bool:
        """Whether ssh lets us in."""
        try:
            return self._banner() and self.ssh("true", check=False, timeout=120).returncode == 0
        except LabError:
            return False

    def wait(self, timeout: float = _BOOT) -> None:
        """Until ssh lets us in."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.pid() is None:
                raise LabError("QEMU of %s ended:\n%s" % (self.machine.name, self._tail("qemu.log")))
            if self.answers():
                return
            time.sleep(0.5)
        raise LabError("%s did not answer in time:\n%s" % (self.machine.name, self._tail("console.log")))

    def pid(self) -> Optional[int]:
        """Of the QEMU that runs this machine."""
        try:
            with open(self._file("pid")) as file:
                pid = int(file.read())
            with open("/proc/%d/cmdline" % pid, "rb") as file:
                return pid if self._file("disk.qcow2").encode() in file.read() else None
        except (OSError, ValueError):
            return None

    def _launch(self, more: list[str]) -> None:
        number = self.machine.number
        port, web = _free_port(self.machine.ssh_port), _free_port(self.machine.web_port)
        argv = [
            *(("setpriv", "--pdeathsig", "KILL") if self.bound else ()),
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
            "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-name", self.machine.name,
            "-serial", "file:" + self._file("console.log"), "-qmp", "unix:qmp,server=on,wait=off",
            "-kernel", self._file("vmlinuz"), "-initrd", self._file("initrd.img"),
            "-append", " ".join((_ARGUMENTS, self.machine.arguments)),
            "-drive", "file=%s,if=virtio,format=qcow2,discard=unmap" % self._file("disk.qcow2"),
            "-netdev", "user,id=control,restrict=on,hostfwd=tcp:127.0.0.1:%d-:22,hostfwd=tcp:127.0.0.1:%d-:8081"
            % (port, web),
            "-device", "virtio-net-pci,netdev=control,mac=52:54:00:77:00:%02x" % number,
            # Frames of the lab's network travel as multicast on loopback: any number of machines, no root.
            "-netdev", "socket,id=lab,mcast=230.0.77.1:42299,localaddr=127.0.0.1",
            "-device", "virtio-net-pci,netdev=lab,mac=52:54:00:77:01:%02x" % number,
            "-device", "virtio-rng-pci", *more,
        ]  # fmt: skip
        with open(self._file("qemu.log"), "wb") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.directory
            )
        for name, value in (("port", port), ("web", web), ("pid", process.pid)):
            with open(self._file(name), "w") as file:
                file.write(str(value))
        time.sleep(0.5)

    # -- talking -------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """Where its ssh is to be had: the machine's own port, or another one if that was taken when it started."""
        return self._port("port", self.machine.ssh_port)

    @property
    def web(self) -> int:
        """Of this machine's loopback: leads to the machine's port 8081, from outside of it."""
        return self._port("web", self.machine.web_port)

    def _port(self, name: str, usual: int) -> int:
        try:
            with open(self._file(name)) as file:
                return int(file.read())
        except (OSError, ValueError):
            return usual

    def ssh_command(self) -> list[str]:
        return [
            "ssh", "-i", images.key(), "-p", str(self.port), "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60",
            "-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=10",
            "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "wharf@127.0.0.1",
        ]  # fmt: skip

    def ssh(self, command: str, *, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        try:
            result = subprocess.run(
                [*self.ssh_command(), command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError("%s: %r had no answer within %d seconds" % (self.machine.name, command, timeout)) from None
        if check and result.returncode:
            raise LabError("%s: %r failed: %s" % (self.machine.name, command, result.stderr or result.stdout))
        return result

    def inventory(self) -> dict[str, Any]:
        """Host variables for Ansible."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "wharf",
            "ansible_ssh_private_key_file": images.key(),
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_common_args": (
                "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o IdentitiesOnly=yes"
            ),
            "ansible_ssh_timeout": 60,
            "lab_address": self.machine.address,
            "lab_web": self.web,
        }

    def monitor(self, command: str) -> str:
        """A command of QEMU's human monitor. Raises ``LabError`` with its words: it has none when all is well."""
        answer = str(self._qmp("human-monitor-command", {"command-line": command}))
        if answer.strip():
            raise LabError("%s: %s: %s" % (self.machine.name, command, answer.strip()))
        return answer

    def _qmp(self, command: str, arguments: Optional[dict[str, Any]] = None) -> Any:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(600)
                # The path may be longer than a socket's address allows; the one through /proc is not.
                fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    sock.connect("/proc/self/fd/%d/qmp" % fd)
                finally:
                    os.close(fd)
                stream = sock.makefile("rwb")
                stream.readline()  # the greeting
                self._exchange(stream, {"execute": "qmp_capabilities"})
                return self._exchange(stream, {"execute": command, "arguments": arguments or {}})
        except (OSError, ValueError) as error:
            raise LabError("QEMU of %s gives no answer to %s: %s" % (self.machine.name, command, error)) from error

    def _exchange(self, stream: Any, message: dict[str, Any]) -> Any:
        stream.write(json.dumps(message).encode() + b"\n")
        stream.flush()
        while True:
            line = stream.readline()
            if not line:
                return None
            answer = json.loads(line)
            if "error" in answer:
                raise LabError("%s: QEMU refused %s: %s" % (self.machine.name, message["execute"], answer["error"]))
            if "return" in answer:
                return answer["return"]

    # -- small things --------------------------------------------------------------------------------------------

    def _banner(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as sock:
                sock.settimeout(5)
                return sock.recv(4) == b"SSH-"
        except OSError:
            return False

    def _has_snapshot(self) -> bool:
        text = subprocess.run(
            ["qemu-img", "snapshot", "-U", "-l", self._file("disk.qcow2")], capture_output=True, text=True, check=False
        ).stdout
        return any(_SNAPSHOT in line.split() for line in text.splitlines())

    def _file(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _tail(self, name: str) -> str:
        try:
            with open(self._file(name), errors="replace") as file:
                return file.read()[-2000:]
        except OSError:
            return "(no %s)" % name


def _free_port(wanted: int) -> int:
    """``wanted``, or any other that nobody listens on, on 127.0.0.1."""
    for port in (wanted, 0):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may still fade
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(sock.getsockname()[1])
    raise LabError("No port is free on 127.0.0.1")
