# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copy the working tree (tracked and new files, nothing ignored) to the path that Ansible's tools insist on.

ansible-test wants ``.../ansible_collections/NAMESPACE/NAME`` inside a git work tree and refuses a symlink.
Only what changed is written: modification times are the tools' cache keys.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
import subprocess
import sys

KEEP = (".git", "tests/output", "__pycache__")


def main(target: str) -> None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    os.makedirs(target, exist_ok=True)
    with open(target + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = _listed(root)
        _remove_others(target, wanted)
        for name in wanted:
            _copy(os.path.join(root, name), os.path.join(target, name))
        if not os.path.isdir(target + "/.git"):
            subprocess.run(["git", "init", "-q", target], check=True)
        subprocess.run(["git", "-C", target, "add", "-A"], check=True)


def _listed(root: str) -> set[str]:
    command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode().split("\0")
    return {name for name in names if name and os.path.isfile(os.path.join(root, name))}


def _remove_others(target: str, wanted: set[str]) -> None:
    for directory, subdirectories, names in os.walk(target):
        relative = os.path.relpath(directory, target)
        subdirectories[:] = [
            name for name in subdirectories if not {name, os.path.normpath(relative + "/" + name)} & set(KEEP)
        ]
        for name in names:
            if os.path.normpath(os.path.join(relative, name)) not in wanted:
                os.unlink(os.path.join(directory, name))


def _copy(source: str, target: str) -> None:
    if os.path.isfile(target) and filecmp.cmp(source, target, shallow=False):
        shutil.copymode(source, target)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy2(source, target)


if __name__ == "__main__":
    main(sys.argv[1])
