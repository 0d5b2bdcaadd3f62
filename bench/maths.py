"""Errors and speed of the short maths functions of the kernels, side by side with the library's scalar ones.

    python -m arcforge.bench.maths --arguments 10000000

Errors in units of the last place of the exact value, which is computed in wider arithmetic: float64 for
float32, the processor's 80 bits for float64 (where there are none, only float32 is measured). Arguments are
drawn over the whole stated range, and once more where a function is hard. Nanoseconds are of one value in a
loop over 16,384 of them that vectorises as a kernel's does; the ratio is to the same loop with the library's
function, which does not. It is the median of ratios within each repeat, processor time.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from arcforge.bench.runner import time_calls
from arcforge.kernels import math32, math64
from arcforge.kernels._jit import FASTMATH, config

Values = NDArray[Any]
Draw = Callable[[np.random.Generator, int], Values]

_SEED = 20_261_123
_BLOCK = 1_000_000
_TIMED = 16_384


def _uniform(low: float, high: float) -> Draw:
    return lambda rng, n: rng.uniform(low, high, n)


def _wide(low: float, high: float) -> Draw:
    """Uniform in the logarithm."""
    return lambda rng, n: np.exp(rng.uniform(np.log(low), np.log(high), n))


def _signed(low: float, high: float) -> Draw:
    draw = _wide(low, high)
    return lambda rng, n: draw(rng, n) * rng.choice([-1.0, 1.0], n)


def _near_one(least: float) -> Draw:
    draw = _wide(least, 0.5)
    return lambda rng, n: 1.0 - draw(rng, n)


@dataclass(frozen=True)
class Function:
    """A function of ``math32`` or ``math64``, and where it is tried.

    Attributes
    ----------
    module : module
    name : str
    exact : callable
        NumPy's function of the same meaning, for arguments of any precision.
    draws : tuple of callable
        ``draw(rng, n)`` gives arguments, float64.
    library : callable
        The scalar function that a kernel would call otherwise.
    most : float
        pow: largest |y log x|; 0 for functions of one argument.
    """

    module: ModuleType
    name: str
    exact: Callable[..., Any]
    draws: tuple[Draw, ...]
    library: Callable[..., Any]
    most: float = 0.0

    @property
    def dtype(self) -> type[np.float32] | type[np.float64]:
        """What it takes and gives."""
        return np.float64 if self.module is math64 else np.float32

    @property
    def wider(self) -> type[np.floating]:
        """What the exact value is computed in."""
        return np.longdouble if self.module is math64 else np.float64

    @property
    def stated_ulp(self) -> float:
        """The largest error, as the module's table states it."""
        table = dict(re.findall(r"^(\w+) .* ([\d.]+) ulp$", self.module.__doc__ or "", re.MULTILINE))
        return float(table[self.name])

    def arguments(self, rng: np.random.Generator, n: int) -> Iterator[tuple[Values, ...]]:
        """Draw ``n`` arguments in every way, in the function's own precision."""
        for draw in self.draws:
            x = draw(rng, n).astype(self.dtype)
            if not self.most:
                yield (x,)
                continue
            log_x = np.log(x.astype(np.float64))
            y = rng.uniform(-self.most, self.most, n) / np.where(log_x == 0.0, 1.0, log_x)
            y[::3] = rng.uniform(-5.0, 5.0, y[::3].size)  # powers as they occur
            y = y.astype(self.dtype)
            fits = np.abs(y * log_x) < self.most
            yield x[fits], y[fits]


_TINY32, _HUGE32, _TINY64, _HUGE64 = 1.18e-38, 3.4e38, 2.3e-308, 1.7e308
_NEAR_ONE = _uniform(0.5, 2.0)

FUNCTIONS = (
    Function(math32, "exp", np.exp, (_uniform(-87.0, 88.0), _signed(1e-12, 1.0)), math.exp),
    Function(math32, "exp2", np.exp2, (_uniform(-126.0, 127.0), _signed(1e-12, 1.0)), np.exp2),
    Function(math32, "log", np.log, (_wide(_TINY32, _HUGE32), _NEAR_ONE), math.log),
    Function(math32, "log2", np.log2, (_wide(_TINY32, _HUGE32), _NEAR_ONE), math.log2),
    Function(math32, "log1p", np.log1p, (_uniform(-0.99, 3.0), _wide(1e-30, 3e38)), math.log1p),
    Function(math32, "atan", np.arctan, (_uniform(-5.0, 5.0), _signed(1e-30, 3e38)), math.atan),
    Function(math32, "atanh", np.arctanh, (_signed(1e-30, 0.9999), _near_one(2e-7)), math.atanh),
    Function(math32, "pow", np.power, (_wide(_TINY32, _HUGE32), _NEAR_ONE), math.pow, 87.0),
    Function(math64, "exp", np.exp, (_uniform(-708.0, 709.0), _signed(1e-20, 1.0)), math.exp),
    Function(math64, "log", np.log, (_wide(_TINY64, _HUGE64), _NEAR_ONE), math.log),
    Function(
        math64, "log1p", np.log1p, (_signed(1e-30, 0.99), _uniform(-1.0 + 3e-16, 3.0), _wide(1.0, _HUGE64)),
        math.log1p,
    ),
    Function(math64, "atan", np.arctan, (_uniform(-5.0, 5.0), _signed(1e-30, 1e300)), math.atan),
    Function(math64, "atanh", np.arctanh, (_signed(1e-30, 0.9999), _near_one(2e-16)), math.atanh),
    Function(math64, "pow", np.power, (_wide(_TINY64, _HUGE64), _NEAR_ONE), math.pow, 708.0),
)  # fmt: skip


def loop_over(function: Callable[..., Any], n_arguments: int = 1) -> Any:
    """Return the loop ``loop(*arguments, out)`` of a function, compiled as kernels are.

    Not cached: numba does not show the machine code of cached functions.
    """

    def one(x: Values, out: Values) -> None:
        for i in range(x.size):
            out[i] = function(x[i])

    def two(x: Values, y: Values, out: Values) -> None:
        for i in range(x.size):
            out[i] = function(x[i], y[i])

    loop = one if n_arguments == 1 else two
    if config.DISABLE_JIT:
        return loop
    compiler: Any = numba.njit
    return compiler(nogil=True, error_model="numpy", fastmath=set(FASTMATH))(loop)


def errors_ulp(function: Function, arguments: Sequence[Values], found: Values) -> NDArray[np.float64]:
    """Return how far ``found`` is from the exact values, in units of their last place."""
    with np.errstate(all="ignore"):
        exact = function.exact(*(each.astype(function.wider) for each in arguments))
    unit = np.spacing(np.abs(exact).astype(function.dtype)).astype(function.wider)
    return np.asarray(np.abs(found.astype(function.wider) - exact) / unit, dtype=np.float64)


def can_measure(function: Function) -> bool:
    """Whether this processor has numbers wide enough to judge the function by."""
    return bool(np.finfo(function.wider).nmant >= np.finfo(function.dtype).nmant + 10)


def worst_error(function: Function, n: int, rng: np.random.Generator) -> tuple[float, tuple[float, ...]]:
    """Return the largest error [ulp] over ``n`` arguments drawn in every way, and where it is."""
    loop = None
    worst: tuple[float, tuple[float, ...]] = 0.0, (np.nan,)
    for begin in range(0, n, _BLOCK):
        for arguments in function.arguments(rng, min(_BLOCK, n - begin)):
            loop = loop or loop_over(getattr(function.module, function.name), len(arguments))
            found = np.empty_like(arguments[0])
            loop(*arguments, found)
            errors = errors_ulp(function, arguments, found)
            k = int(np.argmax(errors))
            worst = max(worst, (float(errors[k]), tuple(float(each[k]) for each in arguments)))
    return worst


def speed(function: Function, repeats: int) -> tuple[float, float, float]:
    """Return nanoseconds a value, of the library's function, and the median of their ratios."""
    arguments = next(iter(function.arguments(np.random.default_rng(_SEED), 2 * _TIMED)))
    arguments = tuple(each[:_TIMED] for each in arguments)
    out = np.empty_like(arguments[0])
    own = loop_over(getattr(function.module, function.name), len(arguments))
    library = loop_over(function.library, len(arguments))
    timings = time_calls(
        {"own": partial(own, *arguments, out), "library": partial(library, *arguments, out)}, repeats
    )
    seconds = timings["own"].cpu_s, timings["library"].cpu_s
    ns = [float(np.median(each)) / out.size * 1e9 for each in seconds]
    return ns[0], ns[1], float(np.median(seconds[1] / seconds[0]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table; exit code 1 where an error is larger than its module states."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arguments", type=int, default=1_000_000, help="a function and way of drawing")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=_SEED)
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(given.seed)
    beyond = False
    sys.stdout.write("function        stated  largest ulp  at                        ns  library   ratio\n")
    for function in FUNCTIONS:
        name = f"{function.name} {function.dtype.__name__}"
        error, at = worst_error(function, given.arguments, rng) if can_measure(function) else (np.nan, ())
        beyond |= error > function.stated_ulp
        own, library, ratio = speed(function, given.repeats)
        where = ", ".join(f"{value:.6g}" for value in at)
        sys.stdout.write(
            f"{name:14s} {function.stated_ulp:7.1f}  {error:11.3f}  {where:22s} {own:5.2f}  {library:7.2f}  "
            f"{ratio:6.1f}\n"
        )
    return int(beyond)


if __name__ == "__main__":
    sys.exit(main())
