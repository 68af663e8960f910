# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``registry`` module: logins, kept in a file only root can read, checked against the registry; mirrors."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..errors import UsageError
from ..reconcile.plan import Operation, Plan
from . import image_choice
from .task import Task


def host_of(task: Task) -> str:
    """The registry's host[:port] from ``registry_url``; a scheme is accepted, as ``docker login`` does."""
    from ..images import reference

    return reference.check_registry(str(task.params["registry_url"]))


def run(task: Task) -> dict[str, Any]:
    from ..registry import credentials

    params = task.params
    host = host_of(task)
    plan = Plan()
    known = credentials.stored(task.paths.auth, host)  # not those of Docker's files and helpers: not this task's
    plan.before = {"registry": host, "logged_in": known is not None}
    if known is not None:
        plan.before["username"] = known.username
    plan.after = dict(plan.before)
    _check(params)
    login: dict[str, Any] = {}
    if params["state"] == "absent":
        plan.after = {"registry": host, "logged_in": False}
        if credentials.logout(task.paths.auth, host, check=True):
            forget = partial(credentials.logout, task.paths.auth, host)
            plan.add(Operation("remove", "login", host, forget, why="not wanted"))
    elif params.get("username"):
        login = {"registry": host, "username": params["username"]}
        plan.after.update(logged_in=True, username=params["username"])
        _plan_login(task, plan, host, known is not None)
    shown = _plan_mirrors(task, plan, host)
    if not task.check_mode:
        plan.apply()
    return {**plan.result(), "login_result": login, "mirrors": shown}


def _check(params: dict[str, Any]) -> None:
    login = bool(params.get("username")), bool(params.get("password"))
    if params["state"] == "present" and not all(login) and (any(login) or params.get("mirrors") is None):
        raise UsageError("username and password are required to log in", step="validate", path="username")


def _plan_login(task: Task, plan: Plan, host: str, before: bool) -> None:
    from ..registry import credentials

    params = task.params
    # The registry is asked in check mode too: a login that would be refused is no change, it is a failure.
    changed = credentials.login(
        image_choice.transport(task),
        task.paths.auth,
        host,
        params["username"],
        params["password"],
        force=bool(params.get("reauthorize")),
        check=task.check_mode,
    )
    if changed:
        how = "replace" if before else "create"
        plan.add(Operation(how, "login", host, lambda: None, why="not logged in as asked"))


def _plan_mirrors(task: Task, plan: Plan, host: str) -> list[str]:
    """Returns the mirrors that the host has after the plan."""
    from ..registry import mirrors

    known = mirrors.load(task.paths.mirrors).get(host, [])
    asked = task.params.get("mirrors")
    if task.params["state"] == "absent":
        asked = []
    wanted = known if asked is None else [mirrors.check(url) for url in asked]
    if wanted != known:
        plan.before["mirrors"], plan.after["mirrors"] = known, wanted
        how = "remove" if not wanted else "live" if known else "create"
        store = partial(mirrors.store, task.paths.mirrors, host, wanted)
        plan.add(Operation(how, "mirrors", host, store, why="asked", detail={"before": known, "after": wanted}))
    return wanted
