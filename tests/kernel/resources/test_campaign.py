# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A few rounds of ``make campaign``, so that neither it nor the laws it checks break unnoticed."""

from __future__ import annotations

import pytest
from campaign.run import Campaign


@pytest.mark.parametrize("seed", [1, 20261124])
def test_after_random_faults_the_next_task_finds_everything_as_it_should_be(seed: int) -> None:
    said: list[str] = []
    campaign = Campaign(seed, said.append)
    campaign.run(6)
    assert not campaign.losses, "\n".join(said)
    assert campaign.rounds == sum(campaign.hits.values()) == 6
