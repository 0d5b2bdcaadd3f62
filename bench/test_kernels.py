"""The benchmark's cases as a pytest-benchmark suite: ``pytest bench``; the ordinary tests run each once,
untimed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from arcforge.bench.cases import PIXSCALE_ARCSEC, STAMPS, Stamp, columns_of, source_named
from arcforge.bench.kernels import TIMED_VARIANTS
from arcforge.bench.machine import multiply_add_chains
from arcforge.engine.render import render_rows
from arcforge.engine.sampling import Sampler
from arcforge.engine.stamps import Options
from arcforge.engine.variants import Variant, variant_named

_ROWS = 4


@pytest.mark.parametrize("variant", TIMED_VARIANTS, ids=lambda variant: variant.name)
@pytest.mark.parametrize("source", ["sersic", "exponential"])
def test_stamps(timed: Any, variant: Variant, source: str) -> None:
    """Render rows of 64-pixel stamps, PSFs included."""
    columns = columns_of(source_named(source), _ROWS)
    images = timed(render_rows, columns, variant=variant.name, threads=1)
    assert images.shape == (_ROWS, 3, 64, 64)
    assert np.isfinite(images).all()
    assert (images.max(axis=(2, 3)) > 0.0).all()


@pytest.mark.parametrize("stamp", STAMPS, ids=lambda stamp: f"{stamp.size_pix}pix")
def test_sizes(timed: Any, stamp: Stamp) -> None:
    """Render rows of every size with the default variant."""
    columns = columns_of(source_named("sersic"), 2, stamp.size_pix)
    images = timed(render_rows, columns, stamp_size=stamp.size_pix, threads=1)
    assert (images.max(axis=(2, 3)) > 0.0).all()


@pytest.mark.parametrize("name", ["uniform4", "auto"])
def test_rays(timed: Any, name: str) -> None:
    """Trace rays alone: the grid is filled, no PSF applied."""
    columns = columns_of(source_named("sersic"), _ROWS)
    sampler = Sampler(columns, Options(64, PIXSCALE_ARCSEC, 1e-3, variant_named(name), False))
    timed(sampler.fill)
    assert (sampler.rays() > 0).all()


def test_multiply_adds(timed: Any) -> None:
    """Run the loop whose rate is taken as the machine's peak."""
    values = np.linspace(0.0, 0.5, 256, dtype=np.float32)
    out = np.empty_like(values)
    timed(multiply_add_chains, values, 1000, out)
    assert np.isfinite(out).all()
