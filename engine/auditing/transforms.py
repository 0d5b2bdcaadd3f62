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
from arcforge.engine.auditing.sky import pairing_correlation

Images = NDArray[np.float32]
Undo = Callable[[FitData], FitData]

# Correlation of pixel noise from which on two images show the same sky
_SAME_NOISE = 0.9

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
    """A fault that moves pixels about.

    Attributes
    ----------
    cause : str
    detail : str
        What it is, in words.
    undo : callable
        Takes it back.
    part : {"arc", "stamp", "control"}
        What was moved; where it is not the arc alone, stamp and control do not share their noise.
    back : callable
        Takes images (n, band, y, x) back.
    """

    cause: str
    detail: str
    undo: Undo
    part: str
    back: Callable[[Images], Images]


def list_transforms(bands: str) -> list[Transform]:
    """Return every orientation and band order, of the arc alone, of the whole stamp, and of the control."""
    moves = [("orientation", name, ORIENTATIONS[_INVERSE.get(name, name)], "is {}") for name in ORIENTATIONS]
    for order in permutations(range(len(bands))):
        if order != tuple(range(len(bands))):
            shown = "".join(bands[k] for k in order)
            moves.append(("band_order", shown, _reorder(np.argsort(order)), "has its bands in the order {}"))
    parts = (
        ("arc", "the added arc", _on_arc),
        ("stamp", "the whole stamp", _on_stamp),
        ("control", "against its stamp, the control", _on_control),
    )
    return [
        Transform(cause, f"{words} {verb.format(name)}", undo(back), part, back)
        for cause, name, back, verb in moves
        for part, words, undo in parts
    ]


def displaced_stamps(data: FitData) -> list[Transform]:
    """Return the transforms that give stamp and control the same noise again; none where they share it.

    Arcs are smooth against the noise, so that nothing needs to be known of them.
    """
    everywhere = np.ones(data.arc.shape, dtype=bool)
    stamps = data.added + data.controls

    def agreement(first: Images, second: Images) -> float:
        return float(np.nan_to_num(np.nanmedian(pairing_correlation(first, second, everywhere))))

    if agreement(stamps, data.controls) >= _SAME_NOISE:
        return []
    found = []
    for transform in list_transforms(data.bands):
        if transform.part == "stamp":
            shared = agreement(transform.back(stamps), data.controls)
        elif transform.part == "control":
            shared = agreement(stamps, transform.back(data.controls))
        else:
            continue
        if shared >= _SAME_NOISE:
            found.append(transform)
    return found


def _reorder(order: NDArray[np.intp]) -> Callable[[Images], Images]:
    return lambda images: images[:, order]


def _on_arc(undo: Callable[[Images], Images]) -> Undo:
    return lambda data: replace(data, added=np.ascontiguousarray(undo(data.added)))


def _on_stamp(undo: Callable[[Images], Images]) -> Undo:
    return lambda data: replace(
        data, added=np.ascontiguousarray(undo(data.added + data.controls)) - data.controls
    )


def _on_control(undo: Callable[[Images], Images]) -> Undo:
    def apply(data: FitData) -> FitData:
        moved = np.ascontiguousarray(undo(data.controls))
        return replace(data, added=data.added + data.controls - moved, controls=moved)

    return apply
