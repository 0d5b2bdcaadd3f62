"""The float64 functions: errors in ulp, edges, vector code, and the deflections that rest on them."""

from __future__ import annotations

import re
from typing import Any

import mpmath
import numba
import numpy as np
import pytest

from arcforge.bench import maths
from arcforge.bench.maths import FUNCTIONS, Function, can_measure, errors_ulp, loop_over
from arcforge.kernels import deflection, math32, math64
from arcforge.kernels._jit import FASTMATH, jit

COMPILED = not numba.config.DISABLE_JIT
compiled_only = pytest.mark.skipif(not COMPILED, reason="the compiler is switched off")
MANY = 200_000 if COMPILED else 400
POWER32 = next(each for each in FUNCTIONS if each.module is math32 and each.name == "pow")
DOUBLES = [each for each in FUNCTIONS if each.module is math64]
TRIED = [*DOUBLES, POWER32]
_FORMS = {"exp": mpmath.exp, "log": mpmath.log, "log1p": mpmath.log1p, "atan": mpmath.atan,
          "atanh": mpmath.atanh, "pow": mpmath.power}  # fmt: skip
_LOOPS: dict[str, Any] = {}


def _name(function: Function) -> str:
    return f"{function.name}-{function.dtype.__name__}"


def loop_of(function: Function) -> Any:
    """Each compiled once for all tests."""
    if _name(function) not in _LOOPS:
        own = getattr(function.module, function.name)
        _LOOPS[_name(function)] = loop_over(own, 2 if function.most else 1)
    return _LOOPS[_name(function)]


def apply(name: str, *values: Any) -> np.ndarray:
    function = next(each for each in DOUBLES if each.name == name)
    arguments = [np.array(each, dtype=np.float64) for each in values]
    out = np.empty_like(arguments[0])
    loop_of(function)(*arguments, out)
    return out


@pytest.mark.parametrize("function", TRIED, ids=_name)
def test_error_over_the_stated_range(function: Function) -> None:
    if not can_measure(function):
        pytest.skip("this processor has no numbers wider than float64: the test with mpmath serves")
    for arguments in function.arguments(np.random.default_rng(64), MANY):
        found = np.empty_like(arguments[0])
        loop_of(function)(*arguments, found)
        errors = errors_ulp(function, arguments, found)
        worst = int(np.argmax(errors))
        where = [each[worst] for each in arguments]
        assert errors[worst] <= function.stated_ulp, f"{function.name}{where} is off by {errors[worst]} ulp"


@pytest.mark.parametrize("function", TRIED, ids=_name)
def test_error_against_fifty_digits(function: Function) -> None:
    for arguments in function.arguments(np.random.default_rng(65), 90):
        found = np.empty_like(arguments[0])
        loop_of(function)(*arguments, found)
        for k, value in enumerate(found):
            with mpmath.workdps(50):
                exact = _FORMS[function.name](*(mpmath.mpf(float(each[k])) for each in arguments))
                unit = mpmath.mpf(float(np.spacing(np.abs(function.dtype(float(exact))))))
                error = float(abs(mpmath.mpf(float(value)) - exact) / unit)
            assert error <= function.stated_ulp, [each[k] for each in arguments]


def test_every_function_states_its_error() -> None:
    for module in (math32, math64):
        stated = re.findall(r"^(\w+) .* [\d.]+ ulp$", module.__doc__ or "", re.MULTILINE)
        assert stated == [each.name for each in FUNCTIONS if each.module is module]


def test_edges() -> None:
    assert apply("exp", [0.0, -0.0, -708.5, -1e300, -np.inf]).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    at_709, above, infinite = apply("exp", [709.0, 710.0, np.inf])
    assert np.isfinite(at_709)
    assert above == infinite == at_709
    assert apply("log", [1.0]).tolist() == [0.0]
    assert apply("log", [0.5, 8.0]).tolist() == [-np.log(2.0), np.log(8.0)]
    assert apply("log1p", [0.0, 1e-300]).tolist() == [0.0, 1e-300]
    half_pi = np.pi / 2.0
    assert apply("atan", [0.0, np.inf, -np.inf, 1e-300]).tolist() == [0.0, half_pi, -half_pi, 1e-300]
    last, one, beyond = apply("atanh", [1.0 - 2.0**-53, 1.0, 7.0])
    assert last == one == beyond == pytest.approx(np.arctanh(1.0 - 2.0**-53), rel=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges_of_powers(dtype: type) -> None:
    function = DOUBLES[-1] if dtype is np.float64 else POWER32

    def power(x: list[float], y: list[float]) -> list[float]:
        out = np.empty(len(x), dtype=dtype)
        loop_of(function)(np.array(x, dtype=dtype), np.array(y, dtype=dtype), out)
        return out.tolist()

    assert power([1.0, 1.0, 1.0, 7.0], [0.0, 1e5, np.inf, 0.0]) == [1.0, 1.0, 1.0, 1.0]
    assert power([2.0, 2.0, 0.25, 3.0, 10.0], [10.0, -3.0, 0.5, 4.0, 1.0]) == [1024.0, 0.125, 0.5, 81.0, 10.0]
    assert power([10.0, 0.5, 2.0], [-1e30, np.inf, -np.inf]) == [0.0, 0.0, 0.0]
    largest = power([10.0, 0.5, 2.0], [1e30, -np.inf, np.inf])
    assert len(set(largest)) == 1
    assert largest[0] == pytest.approx(np.exp(dtype(709.0 if dtype is np.float64 else 88.0)), rel=1e-6)
    assert 0.0 < power([0.0], [0.5])[0] < 1e-18


@pytest.mark.parametrize("name", ["atan", "atanh"])
def test_odd_functions_are_odd_to_the_bit(name: str) -> None:
    x = np.linspace(0.0, 0.999, 301)
    assert np.array_equal(apply(name, -x), -apply(name, x))


def test_the_measure_sees_a_few_units() -> None:
    """A function that is off by three units of the last place is seen to be."""
    function = next(each for each in DOUBLES if each.name == "log")
    if not can_measure(function):
        pytest.skip("this processor has no numbers wider than float64")
    x = np.linspace(1.5, 4.0, 50)
    found = np.log(x)
    assert errors_ulp(function, (x,), found).max() < 1.0
    assert errors_ulp(function, (x,), found + 3.0 * np.spacing(found)).min() > 2.0


@compiled_only
@pytest.mark.parametrize("function", TRIED, ids=_name)
def test_loops_vectorise(function: Function, require_vector_code: Any) -> None:
    arguments = next(function.arguments(np.random.default_rng(1), 8))
    loop_of(function)(*arguments, np.empty_like(arguments[0]))
    require_vector_code(loop_of(function), least=8, double=function.dtype is np.float64)


@compiled_only
def test_deflections_vectorise(require_vector_code: Any) -> None:
    loop = numba.njit(nogil=True, fastmath=set(FASTMATH), error_model="numpy")(
        deflection.sie_deflections.py_func
    )
    x = np.linspace(-1.0, 1.0, 8)
    loop(x, x, 1.0, 0.2, 0.3, np.empty(8), np.empty(8))
    require_vector_code(loop, least=40, double=True)


@jit
def _scales(x, y, out):
    for i in range(x.size):
        out[i] = deflection._near_unit_scale(x[i], y[i])


def test_positions_are_scaled_to_where_squares_exist() -> None:
    x = np.array([1.0, 0.0, -3e-200, 1e300, 1.7e308, 0.75])
    y = np.array([0.5, 0.0, 1e-210, -2.0, 0.0, -1.5])
    scale = np.empty_like(x)
    _scales(x, y, scale)
    largest = np.maximum(np.abs(x), np.abs(y)) * scale
    assert largest[1] == 0.0
    assert (largest[[0, 2, 3, 4, 5]] >= 1.0).all()
    assert (largest < 4.0).all()
    assert (np.frexp(scale)[0] == 0.5).all()


@pytest.mark.compiled
def test_report_names_every_function(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(maths, "FUNCTIONS", (POWER32,))
    assert maths.main(["--arguments", "300", "--repeats", "1"]) == 0
    assert "pow float32" in capsys.readouterr().out
