# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whatever is done in whatever order, what is reachable never vanishes, and what is not goes with collect."""

from __future__ import annotations

import shutil
import tempfile

from helpers.store_kit import check_invariants, container, put_image
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from module_utils._engine.errors import InUse
from module_utils._engine.paths import Paths
from module_utils._engine.store.records import ImageRecord
from module_utils._engine.store.state import Store

NAMES = st.sampled_from(["a", "b", "c"])
REFERENCES = st.sampled_from(["x:1", "x:2", "y:1"])
LAYERS = {"a": ["base", "a"], "b": ["base", "b"], "c": ["base", "b", "c"]}


class Images(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.mkdtemp(prefix="wharf-store-")
        self.paths = Paths(self.home + "/s", self.home + "/r")
        self.store = Store.open(self.paths)
        self.records: dict[str, ImageRecord] = {}  # name -> record, of images that must be there
        self.references: dict[str, str] = {}  # reference -> name
        self.containers: dict[str, str] = {}  # container -> image name
        self.doomed: set[str] = set()

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.home)

    @rule(name=NAMES, reference=REFERENCES)
    def pull(self, name: str, reference: str) -> None:
        self.records[name] = put_image(self.store, name, LAYERS[name], [reference])
        self.references[reference] = name
        self.doomed.discard(name)

    @rule(name=NAMES, reference=REFERENCES)
    def tag(self, name: str, reference: str) -> None:
        if name in self.records:
            self.store.images.tag(reference, self.records[name].id)
            self.references[reference] = name
            self.doomed.discard(name)

    @rule(reference=REFERENCES)
    def untag(self, reference: str) -> None:
        assert self.store.images.untag(reference) == (self.references.pop(reference, None) is not None)

    @rule(name=NAMES, force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        if name not in self.records:
            return
        used = name in self.containers.values()
        try:
            self.store.images.remove(self.records[name].id, force=force)
        except InUse:
            assert used and not force
            return
        assert not used or force
        self.references = {ref: owner for ref, owner in self.references.items() if owner != name}
        if used:
            self.doomed.add(name)
        else:
            del self.records[name]
            self.doomed.discard(name)

    @rule(name=NAMES, user=st.sampled_from(["u", "v"]))
    def run(self, name: str, user: str) -> None:
        if name in self.records and user not in self.containers:
            self.store.containers.create(container(user, self.records[name].id))
            self.containers[user] = name

    @rule(user=st.sampled_from(["u", "v"]))
    def stop(self, user: str) -> None:
        assert self.store.containers.remove(container(user).id) == (self.containers.pop(user, None) is not None)

    @rule()
    def collect(self) -> None:
        self.store.collect()
        for name in [name for name in self.doomed if name not in self.containers.values()]:
            self.doomed.discard(name)
            del self.records[name]
        needed = {layer.chain_id for record in self.records.values() for layer in record.layers}
        assert {layer.chain_id for layer in self.store.layers.list()} == needed

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store.open(self.paths)

    @invariant()
    def what_is_reachable_is_there(self) -> None:
        check_invariants(self.store)
        for record in self.records.values():
            assert self.store.images.get(record.id) == record
        for reference, name in self.references.items():
            found = self.store.images.by_reference(reference)
            assert found is not None and found.id == self.records[name].id
        listed = {record.id for record in self.store.images.list()}
        assert listed == {record.id for name, record in self.records.items() if name not in self.doomed}


TestImages = Images.TestCase
TestImages.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
