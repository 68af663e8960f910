# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take away what no manifest of a registry needs any more: ``registry_collect.py STATE_DIR RUN_DIR FILE``.

Called by the role and by its timer. ``FILE`` is the role's: ``{"container": ..., "read_only": ..., "collect": ...}``,
parameters of the container module for the registry, for the registry that takes no pushes, and for the collection; or
``{"package": {"program", "config", "service", "user"}}``. A blob that is uploaded while a collection runs could be
taken for litter, so there are no pushes meanwhile: pulls go on (image), or the service stops (package).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from typing import Any, Dict, List

# How the registry calls a store to which nothing was ever pushed; it is an error to it.
NOTHING = "Path not found: /docker/registry/v2/repositories"


def main(state_dir: str, run_dir: str, file: str) -> None:
    with open(file, encoding="utf-8") as stream:
        plan = json.load(stream)
    with open(file + ".lock", "w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if "package" in plan:
            by_package(plan["package"])
        else:
            by_container(state_dir, run_dir, plan)


def by_container(state_dir: str, run_dir: str, plan: Dict[str, Dict[str, Any]]) -> None:
    root = os.path.realpath(os.path.join(state_dir, "engine", "current"))
    if not os.path.isdir(root):
        sys.exit("There is no engine below %s" % state_dir)
    with open(os.path.join(root, ".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        sys.path.insert(0, root)
        from wharf_runtime._args import common, container
        from wharf_runtime._engine.entry import dispatch
        from wharf_runtime._engine.errors import WharfError

        spec = common.argument_spec(container.CONFIG, container.OPERATION)

        def run(what: str) -> Dict[str, Any]:
            params = complete(spec, plan[what])
            params.update(state_dir=state_dir, run_dir=run_dir)
            result: Dict[str, Any] = dispatch("container", params)
            return result

        try:
            run("read_only")
            try:
                result = run("collect")
            finally:
                run("container")
        except WharfError as error:
            if NOTHING in str(error.details.get("output")):
                return
            sys.exit("%s (%s)" % (error.msg, error.details.get("logs") or error.hint or error.step))
    told = result.get("container") or {}
    sys.stdout.write(str(told.get("Output") or ""))
    if result.get("status"):
        sys.exit("garbage-collect ended with %s" % result["status"])


def complete(options: Dict[str, Any], given: Dict[str, Any]) -> Dict[str, Any]:
    """Defaults filled in, as Ansible does it."""
    unknown = sorted(set(given) - set(options))
    if unknown:
        sys.exit("The engine that is installed does not know %s" % ", ".join(unknown))
    filled = {name: given.get(name, option.get("default")) for name, option in options.items()}
    for name, option in options.items():
        value = filled[name]
        if value and option.get("options"):
            if isinstance(value, list):
                filled[name] = [complete(option["options"], one) for one in value]
            else:
                filled[name] = complete(option["options"], value)
    return filled


def by_package(plan: Dict[str, Any]) -> None:
    service = ["systemctl"] if os.path.isdir("/run/systemd/system") else ["service"]

    def tell(what: str) -> None:
        words: List[str] = [what, plan["service"]] if service == ["systemctl"] else [plan["service"], what]
        subprocess.run([*service, *words], check=True)

    program = shutil.which(plan["program"]) or plan["program"]
    collect = [program, "garbage-collect", *plan["flags"], plan["config"]]
    tell("stop")
    try:
        # As the service's user: files that root wrote could not be removed by it later.
        user = ["setpriv", "--reuid", plan["user"], "--regid", plan["user"], "--init-groups"]
        done = subprocess.run([*user, *collect], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    finally:
        tell("start")
    told = done.stdout.decode("utf-8", "replace")
    sys.stdout.write(told)
    if done.returncode and NOTHING not in told:
        sys.exit("garbage-collect ended with %d" % done.returncode)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])
