"""The float32 functions: errors in ulp, edges, vector code, and the compiler flags that they rest on."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import mpmath
import numba
import numpy as np
import pytest

from arcforge.engine.rays import KINDS
from arcforge.kernels import (
    adaptive,
    angular,
    deflection,
    lens_epl,
    lens_nfw,
    lens_sie,
    lens_sie_flat,
    low_rank,
    math32,
    math64,
    philox,
    ray,
    spread,
    transfer,
    uniform,
)  # fmt: skip
from arcforge.kernels._jit import FASTMATH, jit
from arcforge.kernels.adaptive import sample_cells
from arcforge.kernels.ray import N_FIELDS, brightness_line

LENSES = [lens_sie, lens_sie_flat, lens_epl, lens_nfw]
COMPILED = not numba.config.DISABLE_JIT
DENSE = 400_001 if COMPILED else 501
OPTIONS = {"nogil": True, "fastmath": set(FASTMATH), "error_model": "numpy"}

Loop = Callable[[np.ndarray, np.ndarray], None]


def _exp(x, out):
    for i in range(x.size):
        out[i] = math32.exp(x[i])


def _log(x, out):
    for i in range(x.size):
        out[i] = math32.log(x[i])


def _exp2(x, out):
    for i in range(x.size):
        out[i] = math32.exp2(x[i])


def _log2(x, out):
    for i in range(x.size):
        out[i] = math32.log2(x[i])


def _log1p(x, out):
    for i in range(x.size):
        out[i] = math32.log1p(x[i])


def _atan(x, out):
    for i in range(x.size):
        out[i] = math32.atan(x[i])


def _atanh(x, out):
    for i in range(x.size):
        out[i] = math32.atanh(x[i])


# Compiled anew, not from the cache: numba does not show the machine code of cached functions.
LOOPS: dict[str, Any] = {
    function.__name__[1:]: numba.njit(**OPTIONS)(function)
    for function in (_exp, _exp2, _log, _log2, _log1p, _atan, _atanh)
}


def apply(name: str, values: Any) -> np.ndarray:
    x = np.ascontiguousarray(values, dtype=np.float32)
    out = np.empty_like(x)
    LOOPS[name](x, out)
    return out


def ulps(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance in units of the last place of the exact value, as a float32 has it."""
    spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return np.abs(found.astype(np.float64) - exact) / spacing


def _wide(low: float, high: float) -> np.ndarray:
    return np.geomspace(low, high, DENSE)


# name, exact form, points, largest error [ulp]: the table of math32's docstring
SWEEPS: list[tuple[str, Any, Any, float]] = [
    ("exp", np.exp, lambda: np.linspace(-87.0, 88.0, DENSE), 1.4),
    ("exp", np.exp, lambda: np.r_[-_wide(1e-12, 1.0), _wide(1e-12, 1.0)], 1.4),
    ("exp2", np.exp2, lambda: np.linspace(-126.0, 127.0, DENSE), 2.4),
    ("exp2", np.exp2, lambda: np.r_[-_wide(1e-12, 1.0), _wide(1e-12, 1.0)], 2.4),
    ("log2", np.log2, lambda: _wide(1.1754944e-38, 3.4e38), 3.5),
    ("log2", np.log2, lambda: np.linspace(0.5, 2.0, DENSE), 3.5),
    ("log", np.log, lambda: _wide(1.1754944e-38, 3.4e38), 1.5),
    ("log", np.log, lambda: np.linspace(0.5, 2.0, DENSE), 1.5),
    ("log1p", np.log1p, lambda: np.linspace(-0.99, 3.0, DENSE), 2.8),
    ("log1p", np.log1p, lambda: np.r_[_wide(1e-30, 3e38), -_wide(1e-30, 0.99)], 2.8),
    ("atan", np.arctan, lambda: np.linspace(-5.0, 5.0, DENSE), 1.9),
    ("atan", np.arctan, lambda: np.r_[_wide(1e-30, 3e38), -_wide(1e-30, 3e38)], 1.9),
    ("atanh", np.arctanh, lambda: np.linspace(-0.9999, 0.9999, DENSE), 3.4),
    ("atanh", np.arctanh, lambda: np.r_[_wide(1e-30, 0.5), -_wide(1e-30, 0.5)], 3.4),
    ("atanh", np.arctanh, lambda: 1.0 - _wide(2e-7, 0.5), 3.4),
]


@pytest.mark.parametrize(("name", "exact", "points", "bound"), SWEEPS)
def test_error_over_a_dense_sweep(name: str, exact: Any, points: Any, bound: float) -> None:
    x = points().astype(np.float32)
    error = ulps(apply(name, x), exact(x.astype(np.float64)))
    worst = int(np.argmax(error))
    assert error[worst] <= bound, f"{name}({x[worst]!r}) is off by {error[worst]:.2f} ulp"


def test_docstring_states_the_bounds_of_the_sweeps() -> None:
    table = dict(re.findall(r"^(\w+) .* ([\d.]+) ulp$", math32.__doc__ or "", re.MULTILINE))
    table.pop("pow")  # of two arguments: tests/test_math64.py
    assert table == {name: f"{bound:g}" for name, _, _, bound in SWEEPS}


@pytest.mark.parametrize("name", ["exp", "exp2", "log", "log2", "log1p", "atan", "atanh"])
def test_error_against_forty_digits(name: str) -> None:
    """The float64 forms, which the sweeps trust, are themselves checked against at random points."""
    rng = np.random.default_rng(32)
    x = {
        "exp": rng.uniform(-87.0, 88.0, 60),
        "exp2": rng.uniform(-126.0, 127.0, 60),
        "log2": 10.0 ** rng.uniform(-37.0, 38.0, 60),
        "log": 10.0 ** rng.uniform(-37.0, 38.0, 60),
        "log1p": 10.0 ** rng.uniform(-20.0, 20.0, 60),
        "atan": 10.0 ** rng.uniform(-20.0, 20.0, 60) * rng.choice([-1.0, 1.0], 60),
        "atanh": rng.uniform(-0.999, 0.999, 60),
    }[name].astype(np.float32)
    with mpmath.workdps(40):
        forms = {"exp2": lambda v: mpmath.mpf(2) ** v, "log2": lambda v: mpmath.log(v, 2)}
        form = forms.get(name) or getattr(mpmath, name)
        exact = np.array([float(form(mpmath.mpf(float(value)))) for value in x])
    assert ulps(apply(name, x), exact).max() <= max(bound for key, _, _, bound in SWEEPS if key == name)


def test_power_through_log_and_exp() -> None:
    """What a Sersic profile of any n is made of: the relative error of x^p grows with |p log x| alone."""
    rng = np.random.default_rng(33)
    x = (10.0 ** rng.uniform(-10.0, 6.0, DENSE)).astype(np.float32)
    p = np.float32(1.0 / 8.0)
    found = apply("exp2", p * apply("log2", x)).astype(np.float64)
    assert np.abs(found / x.astype(np.float64) ** float(p) - 1.0).max() < 6e-7


def test_edges() -> None:
    assert apply("exp", [0.0, -0.0, -87.1, -1e30, -np.inf]).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    at_88, above, infinite = apply("exp", [88.0, 100.0, np.inf])
    assert np.isfinite(at_88)
    assert above == infinite == at_88
    smallest, one, largest = apply("exp2", [-np.inf, 0.0, np.inf])
    assert (smallest, one, largest) == (2.0**-126, 1.0, 2.0**127)
    assert apply("log2", [1.0, 8.0, 0.25]).tolist() == [0.0, 3.0, -2.0]
    assert apply("log", [1.0]).tolist() == [0.0]
    assert apply("log1p", [0.0]).tolist() == [0.0]
    half_pi = np.float32(np.pi / 2.0)
    assert apply("atan", [0.0, np.inf, -np.inf]).tolist() == [0.0, half_pi, -half_pi]
    # beyond the last argument below 1 the value saturates, finite and above all others
    with np.errstate(divide="ignore"):  # the interpreter warns where the compiler gives infinity
        last, one = apply("atanh", [1.0 - 2e-7, 1.0])
    assert np.isfinite(one)
    assert one >= last


@pytest.mark.parametrize("name", ["atan", "atanh"])
def test_odd_functions_are_odd_to_the_bit(name: str) -> None:
    x = np.linspace(0.0, 0.999, 301)
    assert np.array_equal(apply(name, -x), -apply(name, x))


# -- the machine code --

compiled_only = pytest.mark.skipif(not COMPILED, reason="the compiler is switched off")


@compiled_only
@pytest.mark.parametrize("name", list(LOOPS))
def test_loops_vectorise(name: str, require_vector_code: Any) -> None:
    apply(name, [0.5])
    require_vector_code(LOOPS[name], least=8)


@compiled_only
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_ray_loop_of_the_adaptive_kernel_vectorises(kind: Any, require_vector_code: Any) -> None:
    loop = numba.njit(**OPTIONS)(sample_cells.py_func)
    line, one = np.ones(64, dtype=np.float32), np.float32(1.0)
    loop(
        kind, np.ones(N_FIELDS + 40, dtype=np.float32), line, line, 8, one, one, one, line.copy(), line.copy()
    )
    require_vector_code(loop, least=100)


def _line(kind, fields, out):
    brightness_line(kind, fields, math32.F(0.0), math32.F(1.0), math32.F(1.0), out.size, out)


@compiled_only
def test_ray_loop_of_the_uniform_kernel_vectorises(require_vector_code: Any) -> None:
    loop = numba.njit(**OPTIONS)(_line)
    loop(KINDS[0], np.ones(N_FIELDS + 40, dtype=np.float32), np.ones(64, dtype=np.float32))
    require_vector_code(loop, least=80)


# -- the flags --


@jit
def _probe(x, out):
    """Ask what the flags nnan, ninf and reassoc would let the compiler answer without looking."""
    for i in range(x.size):
        out[i, 0] = x[i] != x[i]
        out[i, 1] = x[i] - x[i] == 0.0
        out[i, 2] = (x[i] + math32.F(1e8)) - math32.F(1e8)


@compiled_only
def test_nan_and_infinity_are_not_assumed_away_nor_sums_reordered() -> None:
    x = np.array([1.0, np.nan, np.inf, -np.inf], dtype=np.float32)
    out = np.empty((4, 3), dtype=np.float32)
    _probe(x, out)
    assert out[:, 0].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert out[:, 1].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert out[0, 2] == 0.0  # 1 drowns in 1e8, and would not if the sum were reordered


@compiled_only
@pytest.mark.parametrize(
    "module",
    [
        adaptive,
        angular,
        deflection,
        *LENSES,
        low_rank,
        math32,
        math64,
        philox,
        ray,
        spread,
        transfer,
        uniform,
    ],
)
def test_every_kernel_is_compiled_with_the_named_flags_or_none(module: Any) -> None:
    forbidden = {"fast", "nnan", "ninf", "reassoc"}
    kernels = [value for value in vars(module).values() if hasattr(value, "py_func")]
    assert kernels
    for kernel in kernels:
        flags = kernel.targetoptions.get("fastmath", False)
        assert flags is not True, kernel.__name__
        assert not (set(flags or ()) & forbidden), kernel.__name__
