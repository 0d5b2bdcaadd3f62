"""Every peer as a pytest-benchmark case; one that is not installed is skipped."""

from __future__ import annotations

from typing import Any

import pytest

from arcforge.bench.cases import columns_of, source_named
from arcforge.bench.peers import PEERS, Peer, installed, one_core, prepare
from arcforge.bench.runner import errors_over_peak
from arcforge.engine.render import render_rows


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peer(timed: Any, peer: Peer) -> None:
    """Render two smooth rows, within the error that the peer is allowed."""
    if installed(peer) is None:
        pytest.skip(f"{peer.library} is not installed (extra: peers)")
    columns = columns_of(source_named("smooth"), 2)
    truth = render_rows(columns, rtol=1e-4, threads=1, pixel_response=peer.pixel_response)
    with one_core():
        images = timed(prepare(peer, columns))
    assert errors_over_peak(images, truth).max() <= peer.largest_error
