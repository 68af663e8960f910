# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection as users get it: built, installed into an empty path, and run from there."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from helpers.playbook import ROOT, Host, task

BIN = os.path.dirname(sys.executable)


@pytest.fixture(scope="module")
def tarball(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    _galaxy(tree, "build", "--output-path", str(out), cwd=tree / "ansible_collections/wharf/engine")
    (made,) = out.glob("wharf-engine-*.tar.gz")
    return made


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("installed")
    _galaxy(path, "install", "--offline", str(tarball), "-p", str(path))
    return path


def _galaxy(collections: Path, *words: str, cwd: Path = ROOT) -> None:
    environment = {
        "PATH": BIN + ":/usr/bin:/bin",
        "HOME": str(collections),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_CONFIG": str(ROOT / "tools/ansible.cfg"),
    }
    done = subprocess.run(
        [BIN + "/ansible-galaxy", "collection", *words],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tarball_holds_what_users_need_and_nothing_else(tree: Path, tarball: Path) -> None:
    with tarfile.open(tarball) as tar:
        names = {member.name for member in tar if member.isfile()}
        owners = {(member.uid, member.gid) for member in tar}
    copy = tree / "ansible_collections/wharf/engine"
    command = ["git", "-C", str(copy), "ls-files", "-z"]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")
    ours = set(filter(None, listed))
    for top in ("plugins/", "roles/", "playbooks/", "meta/"):
        expected = {name for name in ours if name.startswith(top)}
        assert expected and expected == {name for name in names if name.startswith(top)}
    assert {"README.md", "LICENSE", "requirements.txt", "MANIFEST.json", "FILES.json"} <= names
    assert names - {"MANIFEST.json", "FILES.json"} <= ours
    for name in ("tools", "Makefile", "pyproject.toml", "requirements-dev.txt", "dist"):
        assert not [other for other in names if (other + "/").startswith(name + "/")], name
    assert tarball.stat().st_size < 2 << 20
    rubbish = [name for name in names if "__pycache__" in name or name.endswith(".pyc") or name.startswith(".")]
    assert rubbish == []
    assert owners == {(0, 0)}


def test_the_dependencies_of_the_execution_environment_are_there(tarball: Path) -> None:
    with tarfile.open(tarball) as tar:
        names = {member.name for member in tar}
        member = tar.extractfile("meta/execution-environment.yml")
        assert member is not None
        described = yaml.safe_load(member.read())
    for name in described["dependencies"].values():
        if isinstance(name, str):
            assert name in names or "meta/" + name in names


def test_modules_are_found_and_run_from_the_installed_collection(
    own_network: None, installed: Path, tmp_path: Path
) -> None:
    host = Host(installed, tmp_path)
    try:
        volume = task("volume", "volume", name="data")
        run = host.play([volume, volume | {"name": "again"}, task("host", "host_info", query="engine.version")])
        assert run.ok and run.changed == ["volume"]
        version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
        assert run["host"]["host"] == version
    finally:
        host.close()
    listed = subprocess.run(
        [BIN + "/ansible-doc", "--list", "--type", "module", "wharf.engine"],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    modules = {path.stem for path in (ROOT / "plugins/modules").glob("*.py") if path.stem != "__init__"}
    assert {line.split()[0] for line in listed.splitlines()} == {"wharf.engine." + name for name in modules}
