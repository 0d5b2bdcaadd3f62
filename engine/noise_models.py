"""Kinds of photon noise, the sky that gains follow from, and whether stamps' inverse variance holds it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arcforge.engine.plan import Plan

NOISES = ("off", "gaussian", "poisson")
# Sky brightness in mag / arcsec^2 that the Legacy Surveys' exposure times are planned for; i lies between its
# neighbours.
SKY_MAG_ARCSEC2 = {"g": 22.04, "r": 20.91, "i": 19.9, "z": 18.46}


def updates_invvar(plan: Plan) -> bool:
    """Tell whether a store was made with ``update_invvar``."""
    return not plan.is_imported and bool(tomllib.loads(plan.config).get("update_invvar", False))
