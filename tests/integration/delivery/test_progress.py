# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A pull of more than a few seconds says how far it is while it runs; where that cannot work, it is silent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.fake_registry import Behaviour, FakeRegistry, Handler
from helpers.images import build_image, layer
from helpers.target import TARGET

from .conftest import Controller

pytestmark = pytest.mark.root

IMAGE = build_image([layer({"a": os.urandom(300_000)})])
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))


def slowly(seconds: float) -> Behaviour:
    def act(handler: Handler, path: str) -> bool:
        data = handler.blob(path)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        step = len(data) // 20 + 1
        for start in range(0, len(data), step):
            handler.wfile.write(data[start : start + step])
            time.sleep(seconds / 20)
        return True

    return act


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry, TARGET.reach(registry.port):
        registry.add("team/app", "1", IMAGE)
        registry.script(LAYER, slowly(4.5))
        yield registry


def pull(controller: Controller, registry: FakeRegistry, **task: Any) -> Any:
    image = {"name": registry.host + "/team/app:1"}
    return controller.play([{"name": "pull", "wharf.engine.image": image, **task}])


def test_a_long_pull_is_told_while_it_runs(controller: Controller, registry: FakeRegistry) -> None:
    done = pull(controller, registry)
    assert done.code == 0, done.output
    told = [line for line in done.output.splitlines() if line.startswith("this_machine: pulling %s/" % registry.host)]
    assert told and " kB of 3" in told[-1] and "0 of 1 layers" in told[-1] and "kB/s" in told[-1], done.output
    detail = done.one("pull")["actions"][0]["detail"]
    assert detail["digest"] == IMAGE.top and detail["received"] > 300_000
    assert set(detail["seconds"]) == {"resolve", "config", "download", "unpack", "commit", "total"}
    assert TARGET.call("names", controller.engine.run + "/progress") == []


def test_a_task_with_no_log_is_silent(controller: Controller, registry: FakeRegistry) -> None:
    done = pull(controller, registry, no_log=True)
    assert done.code == 0 and "pulling" not in done.output, done.output
