"""Time calls side by side, after they were shown to give the right pixels.

Two clocks run: wall time, which a user waits for, and the processor time of this process, which other
programs of a shared machine do not lengthen (they still take its caches). The tables show processor time
for one thread and wall time where threads are compared. Calls are interleaved: each repeat runs every call
once, each time in another order, so that a machine which slows down or speeds up on the way does so for all
of them, and ratios stay paired.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[], object]
Floats = NDArray[np.float64]

LEAST_S = 0.02  # a shorter call is looped until it takes this long: clocks tick, and first touches cost


@dataclass(frozen=True)
class Timing:
    """Seconds a call, of every repeat in turn, by both clocks: float64 (repeats,)."""

    cpu_s: Floats
    wall_s: Floats

    def summary(self, per: float = 1.0) -> dict[str, Any]:
        """Return medians and quartiles in microseconds, divided by ``per`` (stamps in a call)."""
        return {
            "cpu_us": _spread(self.cpu_s * 1e6 / per),
            "wall_us": _spread(self.wall_s * 1e6 / per),
            "repeats": int(self.cpu_s.size),
        }


def _spread(values: Floats) -> dict[str, float]:
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "q25": float(low), "q75": float(high), "best": float(values.min())}


def time_calls(
    calls: Mapping[str, Call],
    repeats: int,
    *,
    after: Call | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Timing]:
    """Time every call ``repeats`` times, interleaved.

    Each is run once before, untimed (compilation, plans, first touches), and looped within a repeat until
    it takes ``LEAST_S``. ``after`` is called, untimed, after each call, which then is not looped.
    """
    loops = {}
    for name, call in calls.items():
        call()
        if after is not None:
            after()
        loops[name] = _loops(call) if after is None else 1
    names = list(calls)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for k in range(repeats):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            seconds[name].append(_once(calls[name], loops[name]))
            if after is not None:
                after()
        if progress is not None:
            progress(k + 1, repeats)
    return {name: Timing(*np.array(found).T) for name, found in seconds.items()}


def _loops(call: Call) -> int:
    _, wall = _once(call, 1)
    return max(1, int(np.ceil(LEAST_S / max(wall, 1e-7))))


def _once(call: Call, loops: int) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(loops):
        call()
    return (time.process_time() - cpu) / loops, (time.perf_counter() - wall) / loops


def ratio(
    slow: Timing,
    fast: Timing,
    *,
    per_slow: float = 1.0,
    per_fast: float = 1.0,
    clock: str = "cpu_s",
) -> dict[str, float]:
    """Return how many times as fast ``fast`` is: median and quartiles of the ratios of each repeat.

    ``per_slow`` and ``per_fast`` are the stamps in a call of each. The two calls of a
    repeat follow each other, so that a clock that drifts between repeats cancels.
    """
    paired = (getattr(slow, clock) / per_slow) / (getattr(fast, clock) / per_fast)
    low, median, high = np.percentile(paired, [25, 50, 75])
    return {"median": float(median), "q25": float(low), "q75": float(high)}


def errors_over_peak(images: NDArray[np.floating], reference: NDArray[np.floating]) -> Floats:
    """Return each row's largest pixel error over its band's peak, the worst of its bands: float64 (n,).

    Both (n, bands, ny, nx). A NaN anywhere gives infinity, not a NaN that a comparison would let pass.
    """
    difference = np.abs(images.astype(np.float64) - reference).max(axis=(2, 3))
    relative = (difference / reference.max(axis=(2, 3))).max(axis=1)
    return np.where(np.isfinite(relative), relative, np.inf)
