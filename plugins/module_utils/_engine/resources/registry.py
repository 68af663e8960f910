# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ``registry`` module: logins, kept in a file only root can read, checked against the registry."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
from ..reconcile.plan import Operation, Plan
from . import image_choice
from .task import Task, query


def host_of(task: Task) -> str:
    """The registry's host[:port] from ``registry_url``; a scheme is accepted, as ``docker login`` does."""
    from ..images import reference

    return reference.check_registry(str(task.params["registry_url"]))


def run(task: Task) -> dict[str, Any]:
    from ..registry import credentials

    params = task.params
    host = host_of(task)
    plan = Plan()
    auth_file = task.paths.auth
    known = credentials.lookup(auth_file, host)
    before = known is not None and known.source == auth_file
    plan.before = {"registry": host, "logged_in": before}
    plan.after = {"registry": host, "logged_in": params["state"] == "present"}
    if before and known is not None:
        plan.before["username"] = known.username
    if params["state"] == "absent":
        if credentials.logout(auth_file, host, check=True):
            plan.add(Operation("remove", "login", host, lambda: credentials.logout(auth_file, host), why="not wanted"))
        if not task.check_mode:
            plan.apply()
        return {**plan.result(), "login_result": {}}
    if not params.get("username") or not params.get("password"):
        raise UsageError("username and password are required to log in", step="validate", path="username")
    plan.after["username"] = params["username"]
    transport = image_choice.transport(task)
    # The registry is asked in check mode too: a login that would be refused is no change, it is a failure.
    changed = credentials.login(
        transport,
        auth_file,
        host,
        params["username"],
        params["password"],
        force=bool(params.get("reauthorize")),
        check=task.check_mode,
    )
    if changed:
        plan.add(
            Operation("replace" if before else "create", "login", host, lambda: None, why="not logged in as asked")
        )
    return {**plan.result(), "login_result": {"registry": host, "username": params["username"]}}


def info(task: Task) -> dict[str, Any]:
    """``registry_info``: is it there and how does it authenticate; the tags of a repository, or the catalog."""
    from ..registry import credentials
    from ..registry.client import RegistryClient

    host = host_of(task)
    client = RegistryClient(host, image_choice.transport(task))
    answer: dict[str, Any] = {"name": host, **client.ping()}
    found = credentials.lookup(task.paths.auth, host)
    answer["logged_in"] = found is not None
    answer["username"] = found.username if found else None
    repository = task.params.get("name")
    if repository:
        answer["tags"] = client.tags(_repository(host, repository))
    else:
        answer["repositories"] = _catalog(client, task)
    return {"changed": False, "registry": query(task.params.get("query"), answer)}


def _repository(host: str, text: str) -> str:
    from ..images import reference

    return reference.parse("%s/%s" % (host, text)).path


def _catalog(client: Any, task: Task) -> Any:
    """Many registries keep the catalog closed; that is an answer, not a failure."""
    from ..errors import RegistryError

    try:
        return client.catalog()
    except RegistryError as error:
        task.warn("The registry does not list its repositories: %s" % error.msg)
        return None
