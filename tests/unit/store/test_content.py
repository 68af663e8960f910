# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs and layers: whole or not there, resumable, and kept while somebody needs them."""

from __future__ import annotations

import hashlib
import os
import signal
import time

import pytest
from helpers.store_kit import check_invariants, digest, fork_all, put_image, put_layer, wait_until
from module_utils._engine.errors import IntegrityError, InUse, NotFound, TimedOut, UsageError
from module_utils._engine.store import scratch
from module_utils._engine.store.records import LayerRecord
from module_utils._engine.store.state import Store

DATA = os.urandom(100_000)
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


def _tmp(store: Store) -> list[str]:
    return sorted(os.listdir(store.paths.tmp))


def test_a_blob_is_invisible_until_committed(store):
    with store.blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA)
        assert not store.blobs.has(DIGEST)
        assert writer.commit() == DIGEST
    assert store.blobs.read(DIGEST) == DATA
    assert store.blobs.size(DIGEST) == len(DATA)
    assert _tmp(store) == []
    assert os.stat(store.blobs.path(DIGEST)).st_mode & 0o777 == 0o600


def test_an_unknown_digest_is_computed(store):
    with store.blobs.writer() as writer:
        writer.write(DATA)
        assert writer.commit() == DIGEST


def test_wrong_bytes_are_never_stored(store):
    with pytest.raises(IntegrityError), store.blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(b"y" * len(DATA))
        writer.commit()
    assert not store.blobs.has(DIGEST)
    assert _tmp(store) == []


def test_more_bytes_than_promised_are_refused_at_once(store):
    with pytest.raises(IntegrityError), store.blobs.writer(DIGEST, 10) as writer:
        writer.write(DATA)
    assert _tmp(store) == []


def test_too_few_bytes_are_no_blob_but_are_kept_for_later(store):
    with pytest.raises(IntegrityError), store.blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:50])
        writer.commit()
    assert not store.blobs.has(DIGEST)
    assert _tmp(store) == ["ingest-" + DIGEST[7:]]


def test_a_partial_blob_is_resumed_by_another_process(paths):
    def first() -> None:
        with Store.open(paths) as store:
            writer = store.blobs.writer(DIGEST, len(DATA))
            writer.write(DATA[:60_000])
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(AssertionError):
        fork_all([first])
    with Store.open(paths) as store, store.blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == 60_000
        writer.write(DATA[60_000:])
        writer.commit()
        assert store.blobs.read(DIGEST) == DATA


def test_a_server_that_ignores_range_makes_it_start_over(store):
    with store.blobs.writer(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:10])
    with store.blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == 10
        writer.restart()
        writer.write(DATA)
        writer.commit()


def test_a_partial_file_longer_than_the_blob_is_thrown_away(store):
    with open("%s/ingest-%s" % (store.paths.tmp, DIGEST[7:]), "wb") as file:
        file.write(b"z" * (len(DATA) + 1))
    with store.blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.offset == 0


def test_a_blob_that_is_there_needs_no_writing(store):
    store.blobs.put_bytes(DATA)
    with store.blobs.writer(DIGEST, len(DATA)) as writer:
        assert writer.complete and writer.offset == len(DATA)
        assert writer.commit() == DIGEST


def test_a_second_process_waits_for_the_first_and_uses_its_blob(paths):
    Store.open(paths).close()

    def download() -> None:
        with Store.open(paths) as store, store.blobs.writer(DIGEST, len(DATA)) as writer:
            if not writer.complete:
                with open(paths.state + "/downloads", "a") as file:
                    file.write("one\n")
                for start in range(0, len(DATA), 10_000):
                    writer.write(DATA[start : start + 10_000])
                    time.sleep(0.01)
                writer.commit()

    fork_all([download] * 4)
    with open(paths.state + "/downloads") as file:
        assert file.read() == "one\n"


def test_waiting_for_a_blob_ends_and_names_the_process(paths):
    with (
        Store.open(paths) as store,
        Store.open(paths) as other,
        store.blobs.writer(DIGEST),
        pytest.raises(TimedOut, match=str(os.getpid())),
    ):
        other.blobs.writer(DIGEST, timeout=0.05)


@pytest.mark.parametrize("bad", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 32, "sha256:" + "G" * 64])
def test_a_digest_that_is_none_never_becomes_a_path(bad, store):
    for call in (store.blobs.path, store.blobs.has, store.blobs.writer, store.blobs.remove, store.layers.pin):
        with pytest.raises(UsageError):
            call(bad)


def test_bit_rot_is_noticed_when_a_small_blob_is_read(store):
    store.blobs.put_bytes(DATA)
    with open(store.blobs.path(DIGEST), "r+b") as file:
        file.write(b"rot")
    with pytest.raises(IntegrityError, match="damaged"):
        store.blobs.read(DIGEST)


def test_an_absent_blob_is_not_found(store):
    for call in (store.blobs.open, store.blobs.size, store.blobs.read):
        with pytest.raises(NotFound):
            call(DIGEST)
    assert store.blobs.remove(DIGEST) == 0


# -- layers ------------------------------------------------------------------------------------------------------


def test_committing_a_layer_twice_keeps_the_first(store):
    first = put_layer(store, "same")
    stage = store.layers.stage()
    with open(stage.path + "/other", "w"):
        pass
    record = LayerRecord(first.chain_id, first.diff_id, "", "tree", 4)
    assert store.layers.commit(stage, record) == record
    assert os.listdir(store.paths.layer(first.chain_id)) == ["tree"]
    check_invariants(store)


def test_two_processes_may_commit_the_same_layer(paths):
    Store.open(paths).close()

    def work() -> None:
        with Store.open(paths) as store:
            for number in range(10):
                put_layer(store, str(number))

    fork_all([work] * 4)
    with Store.open(paths) as store:
        assert len(store.layers.list()) == 10
        check_invariants(store)


def test_a_stage_left_without_commit_is_gone(store):
    with store.layers.stage() as stage:
        os.makedirs(stage.path + "/tree/sub")
    assert _tmp(store) == []
    stage.discard()


def test_a_directory_without_row_does_not_block_a_commit(store):
    os.makedirs(store.paths.layer(digest("chain x")) + "/rubbish")
    put_layer(store, "x")
    assert os.listdir(store.paths.layer(digest("chain x"))) == ["tree"]


def test_a_layer_of_an_image_is_not_removed(store):
    image = put_image(store, "a", ["l"], [])
    with pytest.raises(InUse):
        store.layers.remove(image.layers[0].chain_id)
    check_invariants(store)


# -- collecting -------------------------------------------------------------------------------------------------


def test_collect_takes_what_no_image_names_and_says_how_much(store):
    kept = put_image(store, "kept", ["base"], ["kept"])
    gone = put_image(store, "gone", ["base", "gone"], ["gone"])
    store.images.remove(gone.id)
    result = store.collect()
    assert result["layers"] == [gone.layers[1].chain_id]
    assert set(result["blobs"]) == {gone.id, gone.manifest_digest, gone.layers[1].blob_digest}
    assert result["bytes"] > 0
    assert store.images.get(kept.id) == kept
    check_invariants(store)
    assert store.collect() == {"layers": [], "blobs": [], "bytes": 0}


def test_an_image_index_named_by_a_repository_digest_is_kept(store):
    index = store.blobs.put_bytes(b"index")
    image = put_image(store, "a", [], ["a"])
    store.images.put(image, [], ["repo@" + index])
    store.blobs.unpin()
    assert store.collect()["blobs"] == []


def test_what_another_process_is_about_to_name_is_not_collected(paths):
    with Store.open(paths) as puller, Store.open(paths) as collector:
        layer = put_layer(puller, "coming")
        assert collector.collect() == {"layers": [], "blobs": [], "bytes": 0}
        puller.close()
        assert collector.collect()["layers"] == [layer.chain_id]


def test_a_partial_download_waits_a_day(store):
    with store.blobs.writer(DIGEST) as writer:
        writer.write(b"half")
    store.collect()
    (name,) = _tmp(store)
    old = time.time() - scratch.PARTIAL_SECONDS - 10
    os.utime(store.paths.tmp + "/" + name, (old, old))
    store.collect()
    assert _tmp(store) == []


def test_litter_that_somebody_holds_stays(paths):
    with Store.open(paths) as one, Store.open(paths) as two, one.layers.stage() as stage:
        two.collect()
        two.recover()
        assert os.path.isdir(stage.path)


def test_volumes_are_never_collected(store):
    os.makedirs(store.paths.volume_data("v"))
    store.collect()
    store.recover()
    assert os.path.isdir(store.paths.volume_data("v"))


# -- deleting what a container wrote ------------------------------------------------------------------------------


def test_a_tree_deeper_than_any_recursion_is_deleted(store):
    top = store.paths.tmp + "/trash-deep"
    os.mkdir(top)
    fd = os.open(top, os.O_RDONLY)
    for _n in range(3000):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    scratch.remove_tree(top)
    assert not os.path.exists(top)


def test_deleting_never_follows_a_link(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    top = store.paths.tmp + "/trash-links"
    os.makedirs(top + "/sub")
    os.symlink(outside, top + "/link")
    os.symlink(outside, top + "/sub/link")
    os.mkfifo(top + "/fifo")
    scratch.remove_tree(top)
    os.symlink(outside, store.paths.tmp + "/trash-link")
    scratch.sweep(store.paths.tmp)
    assert _tmp(store) == []
    assert (outside / "file").read_text() == "kept"


def test_two_processes_may_delete_the_same_tree(paths):
    with Store.open(paths) as store:
        for number in range(300):
            os.makedirs("%s/trash-x/%d/a" % (store.paths.tmp, number))
        fork_all([lambda: scratch.remove_tree(store.paths.tmp + "/trash-x") and None] * 4)
        wait_until(lambda: not os.path.exists(store.paths.tmp + "/trash-x"))
