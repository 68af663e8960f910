# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every resource needs to do its work, made when it is first asked for."""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from ..paths import DEFAULT_RUN, DEFAULT_STATE, Paths

if TYPE_CHECKING:
    from ..images.trust.policy import Policy
    from ..kernel.cgroups import Layout
    from ..kernel.syscalls import Kernel
    from ..network.service import NetworkService
    from ..runtime.client import Runtime
    from ..store.state import Store


class Task:
    """Parameters, mode, and lazily opened rooms of one module run. Imports are the budget: nothing opens early."""

    def __init__(
        self, params: dict[str, Any], *, check_mode: bool = False, progress: str = "", diff: bool = True
    ) -> None:
        """``progress``: the token of a file that somebody looks into while this runs (``progress.ProgressFile``).
        ``diff``: before and after are asked for also where they are the same."""
        self.params = params
        self.check_mode = check_mode
        self.progress = progress
        self.diff = diff
        self.paths = Paths(params.get("state_dir") or DEFAULT_STATE, params.get("run_dir") or DEFAULT_RUN)
        self.warnings: list[str] = []
        self.secrets: dict[str, bytes] = {}  # name → content, of the container at hand
        self.promised: frozenset[str] = frozenset()  # containers that another part of this run makes
        self.brief = False  # the result is for another part of the engine: no inspection
        self.trust: Optional[Policy] = None  # what images must be signed by, once it has been read
        self.remember = not check_mode  # what was found out may be kept for later runs
        self._layout: Optional[Layout] = None
        self._temporary = ""
        self._store: Optional[Store] = None
        self._kernel: Optional[Kernel] = None
        self._runtime: Optional[Runtime] = None
        self._network: Optional[NetworkService] = None

    def part(self, params: dict[str, Any], *, check_mode: bool = False, whole: bool = False) -> Task:
        """A task of one entry of a list, with the same rooms opened once. Only the whole is closed.

        ``whole``: ``params`` are all there are, not what differs from this task's.
        """
        self.store, self.runtime, self.layout  # noqa: B018  one of each for all parts
        part = Task.__new__(Task)
        part.__dict__.update(self.__dict__)
        part.params = params if whole else {**self.params, **params}
        part.check_mode, part.progress, part._temporary = check_mode, "", ""
        part.warnings, part.secrets, part.promised, part.brief = [], {}, frozenset(), False
        return part

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._store is not None:
            self._store.close()
        if self._temporary:
            import shutil

            shutil.rmtree(self._temporary)

    @property
    def store(self) -> Store:
        if self._store is None:
            from ..store.state import Store

            self._store = Store.open(self._scratch() if self._untouched() else self.paths)
        return self._store

    def _untouched(self) -> bool:
        """Check mode on a host that has no state yet: nothing may be made there, not even directories."""
        return self.check_mode and not os.path.exists(self.paths.database)

    def _scratch(self) -> Paths:
        """Where an empty store can be, for as long as this task runs."""
        import tempfile

        self._temporary = tempfile.mkdtemp(prefix="wharf-check-")
        return Paths(self._temporary + "/state", self._temporary + "/run")

    @property
    def kernel(self) -> Kernel:
        if self._kernel is None:
            from ..kernel.syscalls import Kernel

            self._kernel = Kernel()
        return self._kernel

    @property
    def layout(self) -> Layout:
        """The host's cgroup hierarchies."""
        if self._layout is None:
            from ..kernel.cgroups import Layout

            self._layout = Layout.detect()
        return self._layout

    @property
    def runtime(self) -> Runtime:
        if self._runtime is None:
            from ..runtime.client import Runtime

            self._runtime = Runtime(self.paths)
        return self._runtime

    @property
    def network(self) -> NetworkService:
        if self._network is None:
            from ..network.service import NetworkService

            self._network = NetworkService(self.paths, self.store)
        return self._network

    def warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def query(expression: Optional[str], value: Any) -> Any:
    """``value`` filtered by a JMESPath expression (https://jmespath.org/specification.html), if there is one."""
    if not expression:
        return value
    import jmespath
    from jmespath.exceptions import JMESPathError

    from ..errors import UsageError

    try:
        return jmespath.search(expression, value)
    except JMESPathError as error:
        raise UsageError(
            # The parser's words come in lines, with an arrow under the text.
            "query: %r is not valid JMESPath: %s" % (expression, str(error).partition("\n")[0].rstrip(":")),
            step="query",
            path="query",
        ) from None
