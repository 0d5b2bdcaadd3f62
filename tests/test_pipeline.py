"""The stages of a run: what is made ahead comes in order, and what goes wrong in any stage comes out."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from arcforge.engine import added_light, writer
from arcforge.engine.errors import RenderError, StoreError
from arcforge.engine.inject import Run, inject
from arcforge.engine.pipeline import ahead


def names() -> set[str]:
    """Threads of runs; those that render stay for the next call."""
    return {t.name for t in threading.enumerate() if not t.name.startswith("arcforge-render")}


def test_items_made_ahead_come_in_order_and_one_waits_at_most():
    made = []

    def items():
        for k in range(6):
            made.append(k)
            yield k

    with ahead(items()) as found:
        assert next(found) == 0
        time.sleep(0.05)
        assert made == [0, 1, 2]  # one in use, one waiting, one at the full queue
        assert list(found) == [1, 2, 3, 4, 5]
    assert "arcforge-ahead" not in names()


def test_an_error_made_ahead_comes_after_what_was_made_before_it():
    def items():
        yield 1
        raise ValueError("third")

    seen = []
    with pytest.raises(ValueError, match="third"), ahead(items()) as found:  # noqa: PT012
        for item in found:
            seen.append(item)
    assert seen == [1]


def test_leaving_early_ends_the_thread():
    with ahead(iter(range(1000))) as found:
        next(found)
    assert "arcforge-ahead" not in names()


STAGES = {
    "drawing": (Run, "used", ValueError),
    "rendering": (Run, "render", RenderError),
    "pairing": (added_light, "pair_exactly", RenderError),
    "writing": (writer, "encode_table", StoreError),
}


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_in_any_stage_ends_the_run_and_its_threads(tmp_path, small_config, monkeypatch, stage):
    owner, name, kind = STAGES[stage]
    real, calls = getattr(owner, name), []

    def broken(*args, **options):
        calls.append(1)
        if len(calls) == 3:  # rows are looked at once before the run, so this is its second shard or third
            raise kind(stage)
        return real(*args, **options)

    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(kind, match=stage):
        inject(tmp_path / "S.zarr", config=small_config, n=1100, seed=1)
    assert not {name for name in names() if name.startswith("arcforge")}
    monkeypatch.undo()
    resumed = inject(tmp_path / "S.zarr", config=small_config, n=1100, seed=1, resume=True)
    assert np.isfinite(resumed.arcs(slice(None))).all()
