"""Turned, mirrored and band-exchanged images: how a stamp may have been made from the right arc, and its
undoing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.auditing.nuisance import FitData

Images = NDArray[np.float32]
Undo = Callable[[FitData], FitData]

# Acting on the last two axes; each undoes itself but the quarter turns, which undo each other
ORIENTATIONS: dict[str, Callable[[Images], Images]] = {
    "mirrored in x": lambda i: i[..., ::-1],
    "mirrored in y": lambda i: i[..., ::-1, :],
    "turned by 180 degrees": lambda i: i[..., ::-1, ::-1],
    "turned by 90 degrees": lambda i: np.rot90(i, 1, axes=(-2, -1)),
    "turned by 270 degrees": lambda i: np.rot90(i, -1, axes=(-2, -1)),
    "transposed (x and y exchanged)": lambda i: i.swapaxes(-2, -1),
    "mirrored in the other diagonal": lambda i: np.rot90(i, 2, axes=(-2, -1)).swapaxes(-2, -1),
}
_INVERSE = {"turned by 90 degrees": "turned by 270 degrees", "turned by 270 degrees": "turned by 90 degrees"}


@dataclass(frozen=True)
class Transform:
    """A fault that moves pixels about: its cause, what it is in words, and how to take it back."""

    cause: str
    detail: str
    undo: Undo


def list_transforms(bands: str) -> list[Transform]:
    """Return every orientation and band order, of the arc alone and of the whole stamp."""
    found = []
    for name in ORIENTATIONS:
        back = ORIENTATIONS[_INVERSE.get(name, name)]
        found.append(Transform("orientation", f"the added arc is {name}", _on_arc(back)))
        found.append(Transform("orientation", f"the whole stamp is {name}", _on_stamp(back)))
    for order in permutations(range(len(bands))):
        if order != tuple(range(len(bands))):
            shown = "".join(bands[k] for k in order)
            back = _reorder(np.argsort(order))
            found.append(
                Transform("band_order", f"the added arc has its bands in the order {shown}", _on_arc(back))
            )
            found.append(
                Transform("band_order", f"the stamp has its bands in the order {shown}", _on_stamp(back))
            )
    return found


def _reorder(order: NDArray[np.intp]) -> Callable[[Images], Images]:
    return lambda images: images[:, order]


def _on_arc(undo: Callable[[Images], Images]) -> Undo:
    return lambda data: replace(data, added=np.ascontiguousarray(undo(data.added)))


def _on_stamp(undo: Callable[[Images], Images]) -> Undo:
    return lambda data: replace(
        data, added=np.ascontiguousarray(undo(data.added + data.controls)) - data.controls
    )
