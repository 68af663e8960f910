# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs every module of the collection, and brings the engine to targets that don't have it yet.

Nobody names this action: ``meta/runtime.yml`` routes the modules to it. It bears the name of one of them because
Ansible's sanity tests want an action to be documented by a module of its name.

The module is an ordinary one and carries no engine; it is told the bundle's content hash. Only when the target answers
that it lacks that bundle, the bundle is transferred and the module runs again. So a task on a prepared host costs no
extra round trip, and become, pipelining, async, loops, check mode, diff, no_log and any connection plugin work as for
every module.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.wharf.engine.plugins.plugin_utils import _bundle, _progress

display = Display()

# Modules that may take long because of a transfer; the others are not watched.
TRANSFERS = ("container", "image", "image_push")


class ActionModule(ActionBase):
    TRANSFERS_FILES = True
    _supports_async = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        bundle = _bundle.current()
        wrap_async = bool(self._task.async_val and not self._connection.has_native_async)
        if self._from_controller():
            answer = self._bring_image(bundle, task_vars)
        elif self._task.async_val:
            # An asynchronous module's answer is read by async_status, not here: see to the engine first.
            ready = self._deliver(bundle, task_vars, only_install=True)
            if ready.get("failed"):
                return {**result, **ready}
            answer = self._run_module(bundle, task_vars, wrap_async=wrap_async)
        elif self._shows_progress():
            with self._tail(task_vars or {}) as token:
                answer = self._deliver(bundle, task_vars, _progress=token)
        else:
            answer = self._deliver(bundle, task_vars)
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return {**result, **answer}

    def _from_controller(self) -> bool:
        args = self._task.args
        asked = args.get("source") == "controller" and args.get("state", "present") == "present"
        return asked and self._task.action.rpartition(".")[2] == "image"

    def _bring_image(self, bundle: _bundle.Bundle, task_vars: Any) -> dict[str, Any]:
        """Tell the target what there is; it takes it from there, unless it lacks layers: then send those."""
        if self._task.async_val:
            raise AnsibleActionFail("source: controller cannot be used with async")
        # Only here: it brings the engine's readers of archives, which no other task needs on the controller.
        from ansible_collections.wharf.engine.plugins.plugin_utils import _fleet

        args = self._task.args
        path = self._find_needle("files", str(args.get("path") or ""))
        with _fleet.Offer(path, str(args.get("name") or "")) as offer:
            answer = self._deliver(bundle, task_vars, _image_offer=offer.text)
            wants = (answer.get("error") or {}).get("wants") if answer.get("failed") else None
            if wants is None:
                return answer
            display.vv("wharf.engine: taking %d layers of %s to the target" % (len(wants), args.get("name")))
            archive = self._send(offer.archive(wants), "wharf-image.tar")
        return self._deliver(bundle, task_vars, _image_archive=archive)

    def _shows_progress(self) -> bool:
        """Not in check mode (nothing is transferred), not when the task is to be silent."""
        if self._task.check_mode or self._task.no_log:
            return False
        return self._task.action.rpartition(".")[2] in TRANSFERS and _progress.works(self._connection)

    def _tail(self, task_vars: dict[str, Any]) -> _progress.Tail:
        host = task_vars.get("inventory_hostname", "")
        run_dir = str(self._task.args.get("run_dir") or "/run/wharf")
        return _progress.Tail(self, run_dir, lambda text: display.display("%s: %s" % (host, text), color="cyan"))

    def _deliver(
        self, bundle: _bundle.Bundle, task_vars: Any, only_install: bool = False, **extra: Any
    ) -> dict[str, Any]:
        """Run the module; when the target lacks the bundle, transfer it and run the module again."""
        if only_install:
            extra["_bundle_only"] = True
        answer = self._run_module(bundle, task_vars, **extra)
        if answer.get("wharf_bundle") != "missing":
            return answer
        display.vv("wharf.engine: taking engine %s to the target" % bundle.sha256[:12])
        answer = self._run_module(bundle, task_vars, _bundle_archive=self._transfer(bundle), **extra)
        if answer.get("wharf_bundle") == "missing":
            raise AnsibleActionFail("The target still lacks engine %s after it was transferred" % bundle.sha256[:12])
        return answer

    def _run_module(
        self, bundle: _bundle.Bundle, task_vars: Any, wrap_async: bool = False, **extra: Any
    ) -> dict[str, Any]:
        # Underscored names are taken out by the module before Ansible sees the arguments (_delivery.EngineModule).
        args = {**self._task.args, "_bundle": bundle.sha256, **extra}
        answer: dict[str, Any] = self._execute_module(module_args=args, task_vars=task_vars, wrap_async=wrap_async)
        return answer

    def _transfer(self, bundle: _bundle.Bundle) -> str:
        return self._send(_bundle.archive(bundle), "wharf-engine.tar.gz")

    def _send(self, path: str, name: str) -> str:
        if self._connection._shell.tmpdir is None:  # pipelining made none
            self._make_tmp_path()
        directory = self._connection._shell.tmpdir
        target = self._connection._shell.join_path(directory, name)
        self._transfer_file(path, target)
        self._fixup_perms2([directory, target])
        return str(target)
