# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An export on the disk: compared with what is there, or written under a temporary name and renamed when complete."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from ..errors import Conflict, KernelError, UsageError
from .candidates import NAME, REF_NAME
from .tarwriter import TarWriter

if TYPE_CHECKING:
    from .export import Export, Member

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
Produce = Callable[[Callable[[bytes], Any]], Any]
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


class _Differs(Exception):
    pass


class _Compare:
    """Takes what would be written, and raises ``_Differs`` as soon as the file has something else."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.position = 0

    def __call__(self, data: bytes) -> None:
        if os.pread(self._fd, len(data), self.position) != data:
            raise _Differs
        self.position += len(data)


def _write_to(fd: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write


def _failed(error: OSError, path: str) -> NoReturn:
    from ..store.scratch import wrap

    raise wrap(error, "Cannot export to %s" % path, step="export", path=path) from error


# -- archives ----------------------------------------------------------------------------------------------------


def check_target(path: str, form: str) -> None:
    """Raises ``UsageError`` for a place that nothing can be written to."""
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        raise UsageError("Cannot export to %s: there is no directory %s" % (path, parent), step="validate", path="path")
    if os.path.isdir(path) != (form == "oci-layout") and os.path.lexists(path):
        raise UsageError(
            "Cannot export to %s: a %s is a %s, and it is %s"
            % (path, form, *(("directory", "none") if form == "oci-layout" else ("file", "a directory"))),
            step="validate",
            path="path",
        )


def same_archive(export: Export, path: str) -> bool:
    """Whether the file holds exactly what would be written."""
    return same_file(path, lambda write: _archive(export, write))


def write_archive(export: Export, path: str) -> None:
    write_file(path, lambda write: _archive(export, write))


def same_file(path: str, produce: Produce) -> bool:
    """Whether the file at ``path`` holds exactly what ``produce(write)`` writes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError as error:
        _failed(error, path)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise UsageError("Cannot export to %s: it is not a file" % path, step="validate", path="path")
        compare = _Compare(fd)
        produce(compare)
        return compare.position == info.st_size
    except _Differs:
        return False
    except OSError as error:
        _failed(error, path)
    finally:
        os.close(fd)


def write_file(path: str, produce: Produce) -> None:
    """Readable by root only, as ``docker save`` makes it: an image may hold secrets."""
    temporary = "%s.wharf-%s" % (path, os.urandom(6).hex())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    except OSError as error:
        _failed(error, path)
    try:
        produce(_write_to(fd))
        os.fsync(fd)
        os.rename(temporary, path)
        _sync(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        _unlink(temporary)
        _failed(error, path)
    except BaseException:
        _unlink(temporary)
        raise
    finally:
        os.close(fd)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _sync(path: str) -> None:
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _archive(export: Export, write: Callable[[bytes], Any]) -> None:
    """Documents first: who reads a stream knows what is coming. Names are short, so every header is plain ustar."""
    tar = TarWriter(write)
    for member in export.documents:
        _member(tar, member)
    for name in (b"blobs", b"blobs/sha256"):
        tar.add(name, stat.S_IFDIR, mode=0o755)
    for member in export.blobs:
        _member(tar, member)
    tar.finish()


def _member(tar: TarWriter, member: Member) -> None:
    tar.add(member.name.encode(), size=member.size)
    member.feed(tar.data)


# -- layouts -----------------------------------------------------------------------------------------------------


def merged_index(export: Export, path: str) -> tuple[bytes, bool]:
    """The layout's ``index.json`` after the export, and whether that is what it is now. Entries of other names stay
    as they are, as with ``skopeo copy``. A directory with anything else in it is refused."""
    index = _read_index(path)
    ours = [json.loads(json.dumps(entry)) for entry in export.entries]
    if index is None:
        document: dict[str, Any] = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json"}
        return _dump({**document, "manifests": ours}), False
    before = index.get("manifests")
    if not isinstance(before, list) or not all(isinstance(entry, dict) for entry in before):
        raise Conflict("Cannot export to %s: its index.json is no OCI index" % path, step="export", path="path")
    after = list(before)
    for entry in ours:
        places = [number for number, one in enumerate(after) if _same_name(one, entry)]
        if places:
            after[places[0]] = entry
            for number in reversed(places[1:]):
                del after[number]
        else:
            after.append(entry)
    return _dump({**index, "manifests": after}), after == before


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _same_name(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Two entries that a reader could not tell apart."""
    mine, theirs = one.get("annotations") or {}, other.get("annotations") or {}
    if not theirs:
        return not mine.get(REF_NAME) and one.get("digest") == other.get("digest")
    return bool(mine.get(REF_NAME) == theirs.get(REF_NAME) or (mine.get(NAME) and mine.get(NAME) == theirs.get(NAME)))


def _read_index(path: str) -> Optional[dict[str, Any]]:
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        _failed(error, path)
    if not names:
        return None
    if "oci-layout" not in names or "index.json" not in names:
        raise Conflict(
            "Cannot export to %s: the directory is not empty, and no OCI layout" % path,
            step="export",
            path="path",
            hint="Name an empty or a new directory.",
        )
    from .manifest import load_json

    try:
        with open(path + "/index.json", "rb") as stream:
            return load_json(stream.read(8 << 20), path + "/index.json")
    except OSError as error:
        _failed(error, path)


def same_blobs(export: Export, path: str) -> bool:
    """Whether the layout has all blobs, and they are sound."""
    try:
        directory = os.open(path + "/blobs/sha256", _DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        _failed(error, path)
    try:
        return all(_same_blob(directory, member) for member in export.blobs)
    except OSError as error:
        _failed(error, path)
    finally:
        os.close(directory)


def _same_blob(directory: int, member: Member) -> bool:
    try:
        fd = os.open(os.path.basename(member.name), os.O_RDONLY | os.O_NONBLOCK | _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_size != member.size:
            return False
        member.feed(_Compare(fd))
        return True
    except _Differs:
        return False
    finally:
        os.close(fd)


def write_layout(export: Export, path: str, index: bytes) -> None:
    """Blobs first, ``index.json`` last: a reader never finds a name that leads nowhere."""
    try:
        for name in ("", "/blobs", "/blobs/sha256"):
            if not os.path.isdir(path + name):
                os.mkdir(path + name, 0o755)
        top = os.open(path, _DIRECTORY)
        blobs = os.open("blobs/sha256", _DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
        try:
            for member in export.blobs:
                if not _same_blob(blobs, member):
                    _place(blobs, os.path.basename(member.name), member.feed)
            os.fsync(blobs)
            layout = next(one for one in export.documents if one.name == "oci-layout")
            if not os.path.exists(path + "/oci-layout"):
                _place(top, "oci-layout", layout.feed)
            _place(top, "index.json", lambda write: write(index))
            os.fsync(top)
        finally:
            os.close(blobs)
            os.close(top)
    except OSError as error:
        _failed(error, path)


def _place(directory: int, name: str, feed: Produce) -> None:
    temporary = ".wharf-%s" % os.urandom(6).hex()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644, dir_fd=directory)
    try:
        feed(_write_to(fd))
        os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=directory)
        except FileNotFoundError:
            pass
        raise
    finally:
        os.close(fd)


def stat_of(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise KernelError.wrap(error, "Cannot look at %s" % path, step="export") from error
