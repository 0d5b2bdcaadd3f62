"""The Python interface of arcforge: render, inject, store and audit.

Names are loaded on first use, so that ``import arcforge.engine`` costs nothing that a caller does not need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "render_lensed_source": "render",
    "render_batch": "render",
    "deflection_sis": "render",
    "deflection_sie": "render",
    "deflection_epl": "render",
    "deflection_nfw": "render",
    "deflection_shear": "render",
    "sersic_profile_Ie1": "render",
    "sersic_unit_total_flux": "render",
    "open_store": "store",
    "audit": "auditing.run",
}

__all__ = [
    "audit",
    "deflection_epl",
    "deflection_nfw",
    "deflection_shear",
    "deflection_sie",
    "deflection_sis",
    "open_store",
    "render_batch",
    "render_lensed_source",
    "sersic_profile_Ie1",
    "sersic_unit_total_flux",
]

if TYPE_CHECKING:
    from arcforge.engine.auditing.run import audit
    from arcforge.engine.render import (
        deflection_epl,
        deflection_nfw,
        deflection_shear,
        deflection_sie,
        deflection_sis,
        render_batch,
        render_lensed_source,
        sersic_profile_Ie1,
        sersic_unit_total_flux,
    )
    from arcforge.engine.store import open_store


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
