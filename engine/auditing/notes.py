"""What to say of pixels that no named fault explains: what else would leave little of the misfit."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from arcforge.engine.auditing.faults import parameters_of, spread_rows
from arcforge.engine.auditing.nuisance import FitData, Point
from arcforge.engine.auditing.readings import READINGS
from arcforge.engine.auditing.solve import evaluate

if TYPE_CHECKING:
    from arcforge.engine.auditing.diagnosis import Diagnosis
    from arcforge.engine.auditing.forward import Forward
    from arcforge.engine.auditing.state import AuditState

# Rows on which renderers and readings are tried, and the share of the misfit that they may leave to be told
_ROWS, _LEAVES = 16, 0.2
# Where more and less than these shares of the pairs are as recorded, and the others leave so many times more
# than a residual may be, the set is a mixture
_FEW, _MOST, _FAR = 0.05, 0.95, 10.0


def note_on_provenance(state: AuditState, result: Diagnosis, data: FitData) -> str:
    """Return a sentence that ends in "; ", or nothing."""
    few = data.take(spread_rows(len(data.rows), _ROWS))
    # another reading may hold for all pairs and still be that of the record for some, as without shear
    return _rendered_otherwise(state, few) or _read_otherwise(state, few) or _mixture(state, result, data)


def _mixture(state: AuditState, result: Diagnosis, data: FitData) -> str:
    """Say so where some pairs are as recorded and others are not."""
    limit, found = state.thresholds["residual.rms_of_peak"], result.recorded.rms_of_peak
    as_recorded = found <= limit
    share = float(np.mean(as_recorded))
    if not _FEW < share < _MOST or np.median(found[~as_recorded]) < _FAR * limit:
        return ""
    wrong = state.pairs.rows[data.rows[~as_recorded]][:3]
    return (
        f"{100 * share:.0f} % of the pairs are as recorded, others are not (rows "
        f"{', '.join(str(row) for row in wrong)}, ...): find what those have in common; "
    )


def _rendered_otherwise(state: AuditState, few: FitData) -> str:
    """Say so where another kind of renderer would have left these pixels."""
    misfit = float(evaluate(state.forward, few, Point(), ()).chi2.sum())
    for words, other in _other_renderers(state.forward):
        again = replace(few, recorded=other.render(few.rows))
        left = float(evaluate(other, again, Point(), ()).chi2.sum())
        if left < _LEAVES * misfit:
            return words.format(f"{100 * left / misfit:.2g} %")
    return ""


def _other_renderers(forward: Forward) -> Iterator[tuple[str, Forward]]:
    for samples in (1, 2, 4):
        other = copy(forward)
        other.variant = f"uniform{samples}"
        yield (
            f"{samples} x {samples} samples a pixel would leave {{}} of the misfit: the renderer samples too "
            "coarsely; ",
            other,
        )
    other = copy(forward)
    other.pixel_response = "box" if forward.pixel_response == "in_psf" else "in_psf"
    how = "means over pixels beside" if other.pixel_response == "box" else "no means over pixels beyond"
    yield f"{how} the PSF would leave {{}} of the misfit: the PSF holds the pixel once; ", other


def _read_otherwise(state: AuditState, few: FitData) -> str:
    """Say so where another reading of the record leaves little, whatever the fluxes."""
    free = parameters_of(few.bands)["flux_scale"]
    misfit = float(evaluate(state.forward, few, Point(), free).left.sum())
    left = {
        name: float(evaluate(state.forward, few, Point(reading=name), free).left.sum()) for name in READINGS
    }
    best = min(left, key=lambda name: left[name])
    if left[best] >= _LEAVES * misfit:
        return ""
    return f"{READINGS[best].words}: that would leave {100 * left[best] / misfit:.2g} % of the misfit; "
