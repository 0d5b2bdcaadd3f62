"""The cases of ``pytest bench``, each run once and untimed, so that they cannot rot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# importing a test function collects it here too
from arcforge.bench.test_kernels import test_multiply_adds, test_rays, test_sizes, test_stamps
from arcforge.bench.test_peers import test_peer

pytestmark = pytest.mark.compiled  # times kernels

__all__ = ["test_multiply_adds", "test_peer", "test_rays", "test_sizes", "test_stamps"]


@pytest.fixture
def timed() -> Callable[..., Any]:
    """Call once, untimed."""
    return lambda function, *arguments, **options: function(*arguments, **options)
