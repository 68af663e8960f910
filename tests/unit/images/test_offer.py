# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the controller tells about an image, and what it gives away."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest
from helpers.images import build_image, layer
from module_utils._engine.errors import IntegrityError, UsageError
from module_utils._engine.images import archive, candidates, offer, platform, reference


def both(directory: Path) -> str:
    """A layout of two images with a layer each, tagged 1 and 2."""
    path = str(directory / "layout")
    entries = []
    for number in ("1", "2"):
        build_image([layer({"f": number.encode()})]).write_layout(path, number)
        entries += json.loads((directory / "layout/index.json").read_text())["manifests"]
    (directory / "layout/index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return path


def test_only_documents_of_the_image_that_is_meant_are_told_and_only_its_layers_are_given(tmp_path: Path) -> None:
    name = reference.parse("shop:2")
    with archive.open_source(both(tmp_path), str(tmp_path)) as source:
        found = offer.documents(source, name)
        assert len(json.loads(found["index.json"])["manifests"]) == 1
        assert len(found) == 4  # with oci-layout, manifest, config
        assert len(offer.layers(found)) == 1
        everything = offer.documents(source, reference.parse("shop:3"))
        assert offer.layers(found) < offer.layers(everything)
        received = offer.OfferSource(offer.encode("/srv/layout", found))
        with received:
            chosen = candidates.choose(received, candidates.survey(received, platform.host_platform()), name)
            assert chosen.parts[0].member in offer.layers(found)
            with pytest.raises(IntegrityError, match="does not hold"):
                received.span(chosen.parts[0].member)


def test_what_is_packed_is_read_again(tmp_path: Path) -> None:
    name = reference.parse("shop:1")
    with archive.open_source(both(tmp_path), str(tmp_path)) as source:
        found = offer.documents(source, name)
        wants = sorted(offer.layers(found))
        with open(tmp_path / "sent.tar", "wb") as stream:
            offer.pack(source, found, wants, stream.write)
        assert not offer.are_plain(source, wants)
    with archive.open_source(str(tmp_path / "sent.tar"), str(tmp_path)) as sent:
        one = candidates.choose(sent, candidates.survey(sent, platform.host_platform()), name)
        assert [part.member for part in one.parts] == wants and sent.find(wants[0]) is not None


@pytest.mark.parametrize(
    "text",
    ["", "%%%", base64.b64encode(b"x").decode(), base64.b64encode(zlib.compress(b"[]")).decode(),
     base64.b64encode(zlib.compress(b'["p", {"a": 1}]')).decode(), base64.b64encode(zlib.compress(b"{")).decode()],
)  # fmt: skip
def test_what_is_no_offer_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        offer.OfferSource(text)
