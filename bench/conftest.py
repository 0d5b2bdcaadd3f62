"""What the benchmark suite runs its cases with."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def timed(benchmark: Any) -> Any:
    """Call a function and time it: pytest-benchmark's fixture. The ordinary tests put a plain call in its
    place.
    """
    return benchmark
