# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``tags`` of an image task: all of them, and only them, name the image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from module_utils._engine.errors import UsageError

pytestmark = pytest.mark.root


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(str(tmp_path))
    engine.busybox("other:1", ["CMD other"])
    yield engine
    engine.close()


def image(engine: Engine, check: bool = False, changes: str = "CMD sh", **params: Any) -> dict[str, Any]:
    path = str(Path(engine.paths.state).parent / "busybox.tar")
    done = {"name": "app:1", "source": "import", "path": path, "changes": [changes], **params}
    return engine.run("image", check, **done)


def names(engine: Engine, name: str = "app:1") -> list[str]:
    found = engine.run("image_info", name=[name])["images"]
    return list(found[0]["RepoTags"]) if found else []


def steps(result: dict[str, Any]) -> list[str]:
    return ["%s %s" % (step["how"], step["name"].rpartition("/")[2]) for step in result["actions"]]


def test_what_is_asked_for_is_there_and_what_is_not_any_more_is_gone(engine: Engine) -> None:
    planned = image(engine, check=True, tags=["app:2", "r.example.com/app"])
    done = image(engine, tags=["app:2", "r.example.com/app"])
    assert steps(planned) == steps(done) == ["import app:1", "tag app:2", "tag app:latest"]
    assert names(engine) == ["app:1", "app:2", "r.example.com/app:latest"] == done["image"]["RepoTags"]
    assert not image(engine, tags=["r.example.com/app:latest", "app:2"])["changed"]
    planned = image(engine, check=True, tags=["app:3"])
    assert steps(planned) == ["tag app:3", "untag app:2", "untag app:latest"]
    assert names(engine) == ["app:1", "app:2", "r.example.com/app:latest"]
    assert steps(image(engine, tags=["app:3"])) == steps(planned) and names(engine) == ["app:1", "app:3"]
    assert steps(image(engine)) == ["untag app:3"] and names(engine) == ["app:1"]
    assert not image(engine)["changed"]


def test_tags_of_others_are_left_alone(engine: Engine) -> None:
    image(engine, tags=["mine:1", "theirs:1"])
    engine.busybox("theirs:1", ["CMD theirs"])
    assert steps(image(engine, tags=[])) == ["untag mine:1"]
    assert names(engine, "theirs:1") == ["theirs:1"]


def test_drift_is_mended_and_tags_follow_the_image(engine: Engine) -> None:
    image(engine, tags=["app:2"])
    engine.run("image", name="app:2", state="absent")
    done = image(engine, tags=["app:2"])
    assert steps(done) == ["tag app:2"] and done["actions"][0]["why"] == "drift"
    done = image(engine, changes="CMD new", tags=["app:2"])
    assert steps(done) == ["import app:1", "tag app:2"] and names(engine) == ["app:1", "app:2"]


def test_tags_go_with_the_name_that_asked_for_them(engine: Engine) -> None:
    image(engine, tags=["app:2"])
    engine.run("image", name="by-hand:1", source="import", path=image_path(engine), changes=["CMD sh"])
    assert steps(engine.run("image", name="app:1", state="absent")) == ["untag app:2", "untag app:1"]
    assert names(engine, "by-hand:1") == ["by-hand:1"]
    image(engine, tags=["app:2"])
    engine.run("image", name="by-hand:1", state="absent")
    planned = engine.run("image", check=True, name="app:1", state="absent")
    assert steps(planned) == ["untag app:2", "remove app:1"]
    assert steps(engine.run("image", name="app:1", state="absent")) == steps(planned)
    assert not engine.run("image", name="app:1", state="absent")["changed"] and names(engine, "app:2") == []


def image_path(engine: Engine) -> str:
    return str(Path(engine.paths.state).parent / "busybox.tar")


def test_the_name_itself_and_doubles_are_no_further_tags(engine: Engine) -> None:
    assert steps(image(engine, tags=["app:1", "docker.io/library/app:1", "x:1", "x:1"])) == ["import app:1", "tag x:1"]


@pytest.mark.parametrize("bad", ["UPPER:1", "x@sha256:" + "0" * 64, ""])
def test_a_bad_tag_is_refused_before_anything_is_done(engine: Engine, bad: str) -> None:
    with pytest.raises(UsageError):
        image(engine, tags=["good:1", bad])
    assert names(engine) == []
