# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Images of the controller for targets: what is told about them, and the archive of what a target lacks.

The engine reads the archive or layout, here on the controller. Archives are kept for the run: hosts that lack the
same layers get the same file.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
from types import TracebackType

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible_collections.wharf.engine.plugins.module_utils._engine.errors import WharfError
from ansible_collections.wharf.engine.plugins.module_utils._engine.images import archive, offer, reference


class Offer:
    """An archive or layout on the controller, and the image called ``name`` in it. Raises ``AnsibleActionFail``."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        try:
            self._source = archive.open_source(path, _run_directory())
            try:
                self._documents = offer.documents(self._source, reference.parse(name))
            except BaseException:
                self._source.close()
                raise
        except WharfError as error:
            raise _failure(error) from error
        self.text = offer.encode(path, self._documents)

    def __enter__(self) -> Offer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    def archive(self, wants: list[str]) -> str:
        """Path of an archive with the documents and the members the target asked for. A target gets layers of the
        image that was offered: a compromised one must not help itself to others of the layout."""
        strange = set(map(str, wants)) - offer.layers(self._documents)
        if strange:
            raise AnsibleActionFail(
                "The target asked for %s, which is no layer of the image" % sorted(strange)[0][:200]
            )
        path = os.path.join(_run_directory(), "wharf-image-%s.tar" % self._key(wants))
        with open(path + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.exists(path):
                try:
                    self._write(path + ".part", wants)
                except WharfError as error:
                    raise _failure(error) from error
                os.rename(path + ".part", path)
        return path

    def _write(self, path: str, wants: list[str]) -> None:
        if not offer.are_plain(self._source, wants):
            with open(path, "wb") as stream:
                offer.pack(self._source, self._documents, wants, stream.write)
            return
        with gzip.GzipFile(path, "wb", compresslevel=1, mtime=0) as packed:
            offer.pack(self._source, self._documents, wants, packed.write)

    def _key(self, wants: list[str]) -> str:
        info = os.stat(self._path)
        digests = [hashlib.sha256(data).hexdigest() for _name, data in sorted(self._documents.items())]
        what = [self._path, info.st_ino, info.st_mtime_ns, digests, list(wants)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


def _failure(error: WharfError) -> AnsibleActionFail:
    return AnsibleActionFail(error.msg, result={"error": error.as_dict()})


def _run_directory() -> str:
    return str(C.DEFAULT_LOCAL_TMP)  # type: ignore[attr-defined]  # constants are made from the configuration
