"""The lens models that kernels are compiled for, and how the compiler chooses among them.

A lens is one file with five names; a row of ``LENSES`` makes it known:

* a ``NamedTuple`` type of one field, whose instance is passed to kernels as ``kind``: numba compiles a kernel
  for each kind on its first use, so that no lens pays for another, in time or in compilation;
* ``fold(...)``: from catalogue values to its float32 parameters, and the frame it wants (NumPy, float64);
* ``lens_of(fields)``: those parameters as scalars, read once a row;
* ``deflect(lens, x, y)``: the deflection (gx, gy) at a point, and a bound on |I - d alpha| (spectral norm)
  around it, by which errors are controlled.
"""

from typing import Any

from numba import types
from numba.extending import overload

from arcforge.kernels import lens_epl, lens_nfw, lens_sie, lens_sie_flat
from arcforge.kernels._jit import FASTMATH

# kind -> (its parameters as scalars, deflection)
LENSES: dict[Any, tuple[Any, Any]] = {
    lens_sie.Sie: (lens_sie.lens_of, lens_sie.deflect),
    lens_sie_flat.FlatSie: (lens_sie_flat.lens_of, lens_sie_flat.deflect),
    lens_epl.Epl: (lens_epl.lens_of, lens_epl.deflect),
    lens_nfw.Nfw: (lens_nfw.lens_of, lens_nfw.deflect),
}


def lens_of(kind, fields):
    """Return the parameters of a lens of that kind from its part of a row's fields."""
    return LENSES[type(kind)][0](fields)


def deflect(kind, lens, x, y):
    """Return (gx, gy, bound) at a point in the lens's frame."""
    return LENSES[type(kind)][1](lens, x, y)


_OPTIONS: Any = {
    "fastmath": set(FASTMATH),
    "error_model": "numpy",
    "nogil": True,
    "forceinline": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


@overload(lens_of, jit_options=_OPTIONS)
def _lens_of(kind, fields):  # type: ignore[no-untyped-def]
    if isinstance(kind, types.BaseNamedTuple):
        chosen = LENSES[kind.instance_class][0]
        return lambda kind, fields: chosen(fields)
    return None


@overload(deflect, jit_options=_OPTIONS)
def _deflect(kind, lens, x, y):  # type: ignore[no-untyped-def]
    if isinstance(kind, types.BaseNamedTuple):
        chosen = LENSES[kind.instance_class][1]
        return lambda kind, lens, x, y: chosen(lens, x, y)
    return None
