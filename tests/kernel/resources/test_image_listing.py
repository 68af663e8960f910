# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``image_info`` over many images: the same as one by one, for the price of a few questions to the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import many_images
from helpers.engine import Engine
from module_utils._engine.store.blobs import Blobs
from module_utils._engine.store.db import Database

pytestmark = pytest.mark.root


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path))
    yield engine
    engine.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that the database is given."""
    statements: list[str] = []
    execute = Database.execute

    def noting(self: Database, sql: str, args: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        statements.append(sql)
        return execute(self, sql, args)

    monkeypatch.setattr(Database, "execute", noting)
    return statements


def test_a_hundred_images_cost_no_more_questions_than_one(
    engine: Engine, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    many_images.make(engine.paths, 1)
    engine.run("image_info")
    asked.clear()
    assert len(engine.run("image_info")["images"]) == 1
    one = len(asked)
    many_images.make(engine.paths, 100)
    monkeypatch.setattr(Blobs, "open", None)  # no config is read from its blob
    asked.clear()
    assert len(engine.run("image_info")["images"]) == 100
    assert len(asked) == one < 30


def test_all_images_are_told_of_as_each_is_alone(engine: Engine) -> None:
    many_images.make(engine.paths, 10)
    engine.run("image", name="untagged:1", source="import", path=_tar(engine))
    shown = engine.run("image_info")["images"]
    assert [engine.run("image_info", name=[image["Id"]])["images"][0] for image in shown] == shown
    first = next(image for image in shown if "app:3" in image["RepoTags"])
    assert first["RepoTags"] == ["app:3", "app:v3"] and len(first["RepoDigests"]) == 1
    assert (first["SharedSize"], first["UniqueSize"]) == (4000, 4000)  # the lower half is that of app:0 to app:2, too
    assert first["RootFS"]["Layers"] == [
        many_images.digest("diff%d/%d" % (0 if place < 4 else 3, place)) for place in range(8)
    ]


def test_layers_are_shared_with_images_that_are_there_only(engine: Engine) -> None:
    many_images.make(engine.paths, 2)
    both = engine.run("image_info")["images"]
    assert [image["SharedSize"] for image in both] == [4000, 4000]
    for name in ("app:1", "app:v1"):
        engine.run("image", name=name, state="absent")
    (left,) = engine.run("image_info")["images"]
    assert (left["SharedSize"], left["UniqueSize"]) == (0, 8000)


def _tar(engine: Engine) -> str:
    from helpers.engine import busybox_tar

    path = engine.paths.state + "-busybox.tar"
    busybox_tar(path)
    return path
