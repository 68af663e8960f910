# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An option of a container that nobody wrote laws for does not come in."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from module_utils._args.container import CONFIG

KERNEL = Path(__file__).parents[2] / "kernel/resources"
# Set, kept, changed, changed back, taken away; the plan, the effect in the kernel.
TABLES = {
    "test_container.py": ("CHANGES",),
    "test_more_options.py": ("CHANGES",),
    "test_linux_options.py": ("CHANGES", "SWITCHES"),
}
# Held by tests of their own, because one container and one value do not show them.
ELSEWHERE = {
    "command": ("test_laws.py", "test_check_predicts_apply_apply_is_idempotent_and_going_back_restores"),
    "networks": ("test_laws.py", "test_check_predicts_apply_apply_is_idempotent_and_going_back_restores"),
    "published_ports": ("test_laws.py", "test_check_predicts_apply_apply_is_idempotent_and_going_back_restores"),
    "env_file": ("test_more_options.py", "test_an_env_file_is_env_and_env_wins"),
    "memory_swap": ("test_more_options.py", "test_memory_swap_is_the_sum_and_follows_memory"),
    "restart_retries": ("test_more_options.py", "test_restart_retries_count_and_end"),
    "network_mode": ("test_container.py", "test_network_mode_none_host_and_container"),
    "links": ("test_linux_options.py", "test_links_are_names_in_hosts"),
    "mac_address": ("test_linux_options.py", "test_mac_address_and_default_host_ip_are_folded_into_their_lists"),
    "default_host_ip": ("test_linux_options.py", "test_mac_address_and_default_host_ip_are_folded_into_their_lists"),
    "volumes_from": ("test_linux_options.py", "test_volumes_from_takes_the_volumes_of_another"),
    "platform": ("test_linux_options.py", "test_another_platform_is_another_image"),
    "image": ("test_linux_options.py", "test_another_platform_is_another_image"),
    "userns_mode": ("test_userns.py", ""),
    "storage_opts": ("test_storage_opts.py", "test_a_size_is_set_kept_changed_restored_and_taken_away"),
    "stop_timeout": ("test_follow.py", "test_a_stop_timeout_of_nothing_is_kept_and_makes_no_difference"),
}
# Changed live, the process the same; beside the table LIVE.
LIVE_ELSEWHERE = {
    "labels": "test_auto_remove_and_labels_change_while_the_process_stays",
    "auto_remove": "test_auto_remove_and_labels_change_while_the_process_stays",
    "restart_policy": "test_a_restart_policy_given_and_taken_decides_what_happens_when_the_process_dies",
    "healthcheck": "test_a_health_check_comes_changes_and_goes_while_the_process_stays",
    "stop_signal": "test_a_stop_signal_and_the_size_of_logs_change_while_the_process_stays",
    "log_driver": "test_the_log_driver_changes_while_the_process_stays",
    "log_options": "test_a_stop_signal_and_the_size_of_logs_change_while_the_process_stays",
    "storage_opts": "test_a_size_is_set_kept_changed_restored_and_taken_away",
}
LIVE_IN = {"storage_opts": "test_storage_opts.py"}  # the others: test_live.py
# No effect of their own in the kernel, or none in a container that runs.
_NOTHING_TO_SEE = {"exposed_ports", "restart_retries", "cpuset_mems", "blkio_weight"}


def keys(path: Path, table: str) -> set[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == table for target in targets):
            value = getattr(node, "value", None)
            if isinstance(value, ast.Dict):
                return {key.value for key in value.keys if isinstance(key, ast.Constant)}
    raise AssertionError("%s has no table %s" % (path.name, table))


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def refused() -> set[str]:
    return keys(KERNEL / "test_linux_options.py", "REFUSED")


@pytest.mark.parametrize("option", sorted(CONFIG))
def test_the_option_is_in_a_table_of_laws_or_has_a_test_that_is_there(option: str) -> None:
    tables = {name for file, names in TABLES.items() for table in names for name in keys(KERNEL / file, table)}
    if option in tables or (CONFIG[option]["change"] == "ignore" and option in refused()):
        return
    assert option in ELSEWHERE, "%s has no laws: add it to a table of %s" % (option, ", ".join(TABLES))
    file, name = ELSEWHERE[option]
    assert name in functions(KERNEL / file) or not name


@pytest.mark.parametrize("option", sorted(name for name in CONFIG if CONFIG[name]["change"] == "live"))
def test_an_option_that_changes_live_is_shown_to_leave_the_process_alone(option: str) -> None:
    if option in keys(KERNEL / "test_live.py", "LIVE") or option in _NOTHING_TO_SEE:
        return
    assert option in LIVE_ELSEWHERE, "%s is said to change live: add it to LIVE of test_live.py" % option
    assert LIVE_ELSEWHERE[option] in functions(KERNEL / LIVE_IN.get(option, "test_live.py"))


def test_no_law_is_about_an_option_that_is_not_there() -> None:
    assert set(ELSEWHERE) | set(LIVE_ELSEWHERE) | _NOTHING_TO_SEE <= set(CONFIG)
