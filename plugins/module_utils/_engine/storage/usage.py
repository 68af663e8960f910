# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much things weigh: bytes on the disk, and for writable layers the apparent size that Docker tells."""

from __future__ import annotations

import os
import stat
from typing import Optional

from ..errors import KernelError
from ..kernel.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, Kernel

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def writable(path: str, kernel: Optional[Kernel] = None) -> int:
    """``SizeRw`` of a container: the apparent sizes of what is in its upper directory, directories and whiteouts 0, a
    file with several names once, as Docker's overlay2 counts. 0 when there is none. Raises ``KernelError``."""
    kernel = kernel or Kernel()
    total, seen = 0, set()
    waiting = ["."]
    try:
        root = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _failed(error, path) from error
    try:
        while waiting:
            inner = waiting.pop()
            for name, info in _entries(kernel, root, inner):
                if stat.S_ISDIR(info.st_mode):
                    waiting.append(name if inner == "." else inner + "/" + name)
                elif info.st_nlink == 1 or (info.st_dev, info.st_ino) not in seen:
                    seen.add((info.st_dev, info.st_ino))
                    total += info.st_size
        return total
    except OSError as error:
        raise _failed(error, path) from error
    finally:
        os.close(root)


def _entries(kernel: Kernel, root: int, path: str) -> list[tuple[str, os.stat_result]]:
    """What vanishes meanwhile is left out."""
    try:
        fd = kernel.openat2(root, path, _DIRECTORY, resolve=_INSIDE)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    found.append((entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
    finally:
        os.close(fd)
    return found


def on_disk(path: str, kernel: Optional[Kernel] = None) -> int:
    """Bytes of disk used by a file, or by everything below a directory. 0 when there is none."""
    from .volumes import usage

    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _failed(error, path) from error
    return usage(path, kernel) if stat.S_ISDIR(info.st_mode) else info.st_blocks * 512


def _failed(error: OSError, path: str) -> KernelError:
    return KernelError.wrap(error, "Cannot measure %s" % path, step="disk_usage")
