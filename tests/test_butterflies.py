"""Steps of transforms: the generated code writes what its NumPy stand-in does, and nowhere else."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from arcforge.kernels import butterflies
from arcforge.kernels.butterflies import ELEMENT, RADICES
from arcforge.kernels.lanes import LANES

RNG = np.random.default_rng(9)
X, Y, OUT, OTHER = RNG.normal(size=(4, 400)).astype(np.float32)
ROUNDING = 1e-6

# name: (generated, in NumPy, arguments); arrays are compared whole afterwards
STEPS = {
    "transpose": (butterflies._transpose, butterflies._transpose_plain, (X, 3, 2 * ELEMENT, OUT, 5)),
    "part_pair": (butterflies._part_pair, butterflies._part_pair_plain, (X, 16, 80, OUT, OTHER, 7)),
    "join_pair": (butterflies._join_pair, butterflies._join_pair_plain, (X, Y, 32, OUT, 16, 64)),
    "scale": (butterflies._scale, butterflies._scale_plain, (X, 16, Y, LANES, OUT, 48)),
    "convolve": (
        butterflies._convolve,
        butterflies._convolve_plain,
        (X, 16, Y, 32, OTHER, 8, np.float32(0.7), OUT, 3),
    ),
    "swap": (butterflies._swap, butterflies._swap_plain, (X, 9, OUT, 1)),
}
for _radix in RADICES:
    for _turned in (True, False):
        STEPS[f"{_radix}, {'turned' if _turned else 'plain'}"] = (
            butterflies._butterfly(_radix, _turned),
            butterflies._butterfly_plain(_radix, _turned),
            (X, 2, ELEMENT, OUT, 1, 2 * ELEMENT, Y, 3),
        )


@pytest.mark.parametrize("name", STEPS)
def test_generated_code_writes_what_numpy_does_and_nowhere_else(name, monkeypatch):
    monkeypatch.setattr(butterflies.config, "DISABLE_JIT", 0)
    generated, plain, args = STEPS[name]

    @numba.njit
    def call(*args):
        return generated(*args)

    found, expected = ([np.copy(x) if np.ndim(x) else x for x in args] for _ in range(2))
    call(*found)
    plain(*expected)
    written = 0
    for before, one, other in zip(args, found, expected, strict=True):
        if np.ndim(before):
            assert np.abs(one - other).max() < ROUNDING * np.abs(other).max()
            assert np.array_equal(one != before, other != before)
            written += int((one != before).sum())
    assert written > 0
    assert written % ELEMENT == 0
