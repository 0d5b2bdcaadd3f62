"""The kernel variants: one literal table that the renderer, the tests and the benchmarks all read."""

from __future__ import annotations

from dataclasses import dataclass

from arcforge.engine.errors import RenderError


@dataclass(frozen=True)
class Variant:
    """One way to turn a row into a stamp.

    Attributes
    ----------
    name : str
        What ``variant=`` takes.
    samples : int
        Midpoint samples a pixel and axis; 0 where sampling is driven by the error.
    tolerance : float
        Largest pixel error over the peak for an exponential source with R_e >= 0.3 arcsec under survey
        seeing, against the converged reference; tests hold each variant to it. Cuspier or smaller sources do
        worse in the uniform ones, without bound.
    why : str
        What it is kept for.
    low_rank : bool
        PSFs that are one or a few separable terms are applied in passes of weights, not by transforms.
    """

    name: str
    samples: int
    tolerance: float
    why: str
    low_rank: bool = False

    @property
    def samples_beside(self) -> int:
        """Midpoint samples a pixel and axis beside the stamp: half as many, at least one."""
        return max(1, self.samples // 2)


VARIANTS = (
    Variant("auto", 0, 1e-3, "the default: every pixel of every row within rtol"),
    Variant("uniform1", 1, 1e-1, "one sample a pixel: what the request's NumPy code does"),
    Variant("uniform2", 2, 3e-2, "2 x 2 samples a pixel"),
    Variant("uniform4", 4, 1e-2, "4 x 4 samples a pixel: like-for-like timing against peers"),
    Variant("uniform8", 8, 5e-3, "8 x 8 samples a pixel: shows how slowly uniform sampling converges"),
    Variant(
        "low_rank",
        0,
        1e-3,
        "as auto, smooth PSFs in passes of weights: a second way to the same stamps",
        True,
    ),
    Variant("reference", 0, 1e-5, "float64, converged, no code shared with the others: the arbiter, slow"),
)


def variant_named(name: str) -> Variant:
    """Return the variant of that name, or raise a ``RenderError`` that lists the names."""
    for variant in VARIANTS:
        if variant.name == name:
            return variant
    raise RenderError(f"unknown variant {name!r}; use one of {', '.join(v.name for v in VARIANTS)}")
