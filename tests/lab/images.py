# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disk images out of Debian packages, made once and kept outside the repository."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import signal
import subprocess

from .machines import Machine

_CUSTOMIZE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "customize.sh")
_SIZE = "6G"
# Services that a scenario starts itself, by package.
_OFF = {
    "docker.io": ("docker.service", "docker.socket", "containerd.service"),
    "firewalld": ("firewalld.service",),
    "ufw": ("ufw.service",),
}


class LabError(Exception):
    """What keeps the lab from working, as a sentence."""


def cache() -> str:
    """Where machines live: ``$WHARF_LAB``, or ``wharf-engine-lab`` in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.environ.get("WHARF_LAB") or os.path.join(base, "wharf-engine-lab")
    os.makedirs(path, exist_ok=True)
    return path


def directory(machine: Machine) -> str:
    return os.path.join(cache(), machine.name)


def key() -> str:
    """The private key that opens every machine; made when it is not there."""
    path = os.path.join(cache(), "id_ed25519")
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several machines may be made at once, all for one key
        if not os.path.exists(path + ".pub"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "wharf-lab", "-f", path)
    return path


def recipe(machine: Machine) -> str:
    """Changes when the machine would be made another way."""
    with open(_CUSTOMIZE, "rb") as script, open(key() + ".pub", "rb") as public:
        text = repr(machine).encode() + script.read() + public.read() + _SIZE.encode()
    return hashlib.sha256(text).hexdigest()


def is_current(machine: Machine) -> bool:
    try:
        with open(os.path.join(directory(machine), "recipe")) as file:
            return file.read() == recipe(machine)
    except FileNotFoundError:
        return False


def ensure(machine: Machine) -> str:
    """The machine's directory with ``disk.qcow2``, ``vmlinuz`` and ``initrd.img``; built unless it is there."""
    target = directory(machine)
    if is_current(machine):
        return target
    for program in ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs"):
        if shutil.which(program) is None:
            raise LabError("%s is missing: apt-get install qemu-system-x86 qemu-utils mmdebstrap e2fsprogs" % program)
    if os.geteuid() != 0:
        raise LabError("Building the machine %s needs root" % machine.name)
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target, mode=0o700)
    root = os.path.join(target, "root")
    try:
        _bootstrap(machine, root)
        for name in ("vmlinuz", "initrd.img"):
            found = sorted(glob.glob("%s/boot/%s-*" % (root, name)))
            if not found:
                raise LabError("%s: the packages brought no %s" % (machine.name, name))
            shutil.copyfile(found[-1], os.path.join(target, name))
        raw = os.path.join(target, "disk.raw")
        # An older feature set than mke2fs's present default: the oldest guest's kernel and fsck must know it.
        _run("mke2fs", "-q", "-t", "ext4", "-O", "^orphan_file,^metadata_csum_seed", "-d", root, raw, _SIZE)
        _run("qemu-img", "convert", "-O", "qcow2", raw, os.path.join(target, "disk.qcow2"))
        os.unlink(raw)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    with open(os.path.join(target, "recipe"), "w") as file:
        file.write(recipe(machine))
    return target


def _bootstrap(machine: Machine, root: str) -> None:
    hook = '%s "$1" %s.pub %s %d' % (_CUSTOMIZE, key(), machine.name, machine.number)
    units = [unit for package in machine.extra for unit in _OFF.get(package, ())]
    if units:
        hook += ' && chroot "$1" systemctl disable --quiet ' + " ".join(units)
    bootstrap(
        "--variant=minbase", "--include=" + ",".join(machine.packages), "--customize-hook=" + hook,
        machine.suite, root, *([machine.sources] if machine.sources else []),
    )  # fmt: skip


def bootstrap(*arguments: str) -> None:
    """mmdebstrap mounts /proc, /sys and /dev below the root and starts package scripts. In namespaces of its own, none
    of that can outlive it or us, and removing the root can never reach what was mounted there."""
    _run(
        "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
        "mmdebstrap", *arguments, name="mmdebstrap",
    )  # fmt: skip


def _run(*argv: str, name: str = "") -> None:
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _errors = process.communicate()
    except BaseException:
        end_group(process)
        raise
    if process.returncode:
        raise LabError("%s failed:\n%s" % (name or argv[0], output[-3000:]))


def end_group(process: subprocess.Popen[str]) -> None:
    """End a process that leads a group, and all of the group. It has half a minute to clean up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    if process.stdout:
        process.stdout.close()
