# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from module_utils._engine.errors import UsageError
from module_utils._engine.kernel import capabilities as caps

EVERY = set(caps.NAMES)


def test_the_default_set_has_the_mask_docker_shows():
    assert caps.to_mask(caps.DEFAULT) == 0xA80425FB
    assert caps.to_mask(caps.resolve(held=EVERY)) == 0xA80425FB
    assert caps.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40
    assert caps.from_mask(0xA80425FB) == caps.resolve(held=EVERY)


def test_names_are_taken_in_any_case_and_without_prefix():
    assert caps.parse(["net_admin", "CAP_SYS_TIME", "all"]) == {"CAP_NET_ADMIN", "CAP_SYS_TIME", "ALL"}


@pytest.mark.parametrize("name", ["bogus", "CAP_BOGUS", "CAP_ALL", ""])
def test_unknown_names_are_refused_in_dockers_words(name):
    with pytest.raises(UsageError, match='unknown capability: "CAP_'):
        caps.parse([name])


def test_a_capability_we_lack_is_refused_when_named_and_left_out_otherwise():
    held = EVERY - {"CAP_SYS_RESOURCE", "CAP_CHOWN"}
    with pytest.raises(UsageError, match="capability not supported by your kernel or not available") as caught:
        caps.resolve(["sys_resource"], held=held)
    assert caught.value.path == "capabilities"
    assert "CAP_SYS_RESOURCE" not in caps.resolve(["ALL"], held=held)
    assert "CAP_SYS_RESOURCE" not in caps.resolve(privileged=True, held=held)
    assert "CAP_CHOWN" not in caps.resolve(held=held)


def test_add_and_drop_follow_dockers_order():
    assert caps.resolve(drop=["ALL"], held=EVERY) == []
    assert caps.resolve(["NET_ADMIN"], ["ALL", "NET_ADMIN"], held=EVERY) == ["CAP_NET_ADMIN"]
    assert set(caps.resolve(["ALL"], ["CHOWN"], held=EVERY)) == EVERY - {"CAP_CHOWN"}
    assert set(caps.resolve(["ALL"], ["ALL"], held=EVERY)) == EVERY
    assert set(caps.resolve(["NET_ADMIN"], ["KILL"], held=EVERY)) == set(caps.DEFAULT) - {"CAP_KILL"} | {
        "CAP_NET_ADMIN"
    }
    assert "CAP_NET_ADMIN" not in caps.resolve(["NET_ADMIN"], ["NET_ADMIN"], held=EVERY)
    assert set(caps.resolve(drop=["ALL"], privileged=True, held=EVERY)) == EVERY


class Recorder:
    """Stands for the kernel: knows capabilities 0..40, holds all but SYS_RESOURCE."""

    def __init__(self):
        self.calls = []

    def capget(self):
        mask = caps.to_mask(EVERY - {"CAP_SYS_RESOURCE"})
        return mask, mask, 0

    def prctl(self, option, arg2=0, arg3=0, arg4=0, arg5=0):
        if option == 23:
            if arg2 > 40:
                raise OSError(22, "Invalid argument")
            return int(arg2 != 24)
        self.calls.append(("prctl", option, arg2, arg3))
        return 0

    def capset(self, effective, permitted, inheritable):
        self.calls.append(("capset", effective, permitted, inheritable))


def test_the_user_changes_between_the_bounding_drop_and_the_capset():
    kernel = Recorder()
    granted = ["CAP_CHOWN", "CAP_SYS_RESOURCE"]
    caps.apply(kernel, granted, granted, granted, switch_user=lambda: kernel.calls.append(("user",)))
    kinds = [call[:2] if call[0] == "prctl" else call[:1] for call in kernel.calls]
    user = kinds.index(("user",))
    assert kinds[user - 1] == ("prctl", 8)
    assert all(kind == ("prctl", 24) for kind in kinds[: user - 1])
    dropped = {call[2] for call in kernel.calls if call[:2] == ("prctl", 24)}
    assert dropped == set(range(41)) - {0, 24}
    assert kernel.calls[user + 1] == ("capset", 1, 1, 0)  # what we lack is left out
    assert kernel.calls[user + 3] == ("prctl", 47, 4, 0)  # ambient cleared


def test_ambient_is_raised_last_and_only_what_is_asked():
    kernel = Recorder()
    one = ["CAP_NET_BIND_SERVICE"]
    caps.apply(kernel, one, one, one, one, one)
    assert kernel.calls[-1] == ("prctl", 47, 2, 10)
