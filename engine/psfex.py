"""PSF models of PsfEx, evaluated where a host lies: an image of odd side, centred, of unit sum.

A model is a set of images, each the coefficient of one term of a polynomial in the place on the detector
(Bertin 2011, ASP Conf. Ser. 442, 435; psfex.readthedocs.io, "The PSFEx PSF model"): with
u = (x - POLZERO1) / POLSCAL1 and v likewise, the terms are u^i v^j for i + j <= POLDEG1, i running fastest.
Their pixels are PSF_SAMP detector pixels apart and hold the detector pixel's response.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.errors import HostError
from arcforge.engine.host_files import unpacked
from arcforge.engine.psf_images import core_offset_pix

Floats = NDArray[np.float64]

_PLACE_NAMES = (("X_IMAGE", "Y_IMAGE"), ("XWIN_IMAGE", "YWIN_IMAGE"))
_LANCZOS = 3
_ONE_SAMPLING = 1e-6  # PSF_SAMP this near to 1 is 1
# An image that adds up to less lost much of its light at its edges; PsfEx normalises to 1.
_SUM_TOLERANCE = 0.1
# Places so far outside where the stars were, in units of the polynomial's scale (half of their range), are
# extrapolations; a corner of the detector beyond the last star is not refused.
_FARTHEST = 1.5
_CENTRED_PIX = 0.02


@dataclass(frozen=True)
class PsfExModel:
    """The PSF of one exposure (or one detector of it) in one band."""

    path: str
    coefficients: Floats  #: (terms, side, side)
    zero: tuple[float, float]  #: POLZERO, detector pixels counted from 1
    scale: tuple[float, float]
    degree: int
    sampling: float  #: detector pixels from one image pixel to the next

    @property
    def side(self) -> int:
        """Side of the images it gives, odd [detector pixels]."""
        half: int = self.coefficients.shape[-1] // 2
        return 2 * math.floor(half * self.sampling + 1e-9) + 1

    def image_at(self, x_image: float, y_image: float) -> Floats:
        """The PSF at a place on the detector.

        What the model itself is off its middle (hundredths of a pixel, tenths at a corner without stars)
        would move every arc, and is taken out.

        Parameters
        ----------
        x_image, y_image
            In detector pixels, the first being 1 (FITS).

        Returns
        -------
        float64 (side, side)
            At the detector's pixel scale, the core in the middle pixel, scaled to a sum of 1.

        Raises
        ------
        HostError
            The place lies far from where the model was fitted, or the image is no PSF there.
        """
        image = self.drawn_at(x_image, y_image)
        image = _shifted(image, *core_offset_pix(image))
        total, offset = float(image.sum()), max(map(abs, core_offset_pix(image)))
        if not (abs(total - 1.0) <= _SUM_TOLERANCE and offset < _CENTRED_PIX):
            raise HostError(
                f"PSF model {self.path} has a sum of {total:.3g} and a core {offset:.2g} pix off at "
                f"x = {x_image:.0f}, y = {y_image:.0f}: it is no PSF there",
                reason="bad PSF image",
            )
        return np.asarray(image / total)

    def drawn_at(self, x_image: float, y_image: float) -> Floats:
        """The polynomial's image, as the model has it."""
        u, v = (
            (place - zero) / scale
            for place, zero, scale in zip((x_image, y_image), self.zero, self.scale, strict=True)
        )
        far = max(abs(u), abs(v))
        if far > _FARTHEST:
            raise HostError(
                f"x = {x_image:.0f}, y = {y_image:.0f} lies {far:.1f} times the fitted range from the middle "
                f"of PSF model {self.path}: give places on its detector, counted from 1",
                reason="not on the PSF model",
            )
        terms = [u**i * v**j for j in range(self.degree + 1) for i in range(self.degree + 1 - j)]
        return self._resampled(np.tensordot(terms, self.coefficients, axes=1))

    def _resampled(self, image: Floats) -> Floats:
        """The image at detector pixels, by Lanczos interpolation as PsfEx and GalSim do."""
        if abs(self.sampling - 1.0) < _ONE_SAMPLING:
            return image
        half = self.side // 2
        wanted = np.arange(-half, half + 1) / self.sampling + image.shape[-1] // 2
        distance = wanted[:, None] - np.arange(image.shape[-1])[None, :]
        weight = np.where(np.abs(distance) < _LANCZOS, np.sinc(distance) * np.sinc(distance / _LANCZOS), 0.0)
        weight /= weight.sum(axis=1, keepdims=True)
        return np.asarray(weight @ image @ weight.T / self.sampling**2)


def _shifted(image: Floats, x_pix: float, y_pix: float) -> Floats:
    """The image moved by (-x, -y), through its transform: exact where its edges are dark."""
    k = np.fft.fftfreq(len(image))
    turn = np.exp(2j * np.pi * (k[:, None] * y_pix + k[None, :] * x_pix))
    return np.asarray(np.fft.ifft2(np.fft.fft2(image) * turn).real)


def _content(name: str) -> bytes:
    try:
        return unpacked(name, Path(name).read_bytes())
    except HostError as error:
        raise HostError(f"PSF model {name}: {error}") from error


def read_psfex(spec: str) -> PsfExModel:
    """Read a model: ``FILE`` or ``FILE#CCDNAME``, for files of a row a detector.

    PsfEx writes the polynomial into the header, the Legacy Surveys into columns; both are read.

    Raises
    ------
    HostError
        The file is unreadable or no PsfEx model, or holds several detectors of which none was named.
    """
    from astropy.io import fits

    name, _, detector = spec.partition("#")
    try:
        with fits.open(io.BytesIO(_content(name))) as units:
            for unit in units:
                columns = [] if unit.is_image else [column.lower() for column in unit.columns.names]
                if "psf_mask" in columns:
                    return _model(spec, unit, columns, detector)
    except HostError:
        raise
    except Exception as error:  # damaged bytes fail in many ways inside astropy
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise HostError(f"PSF model {name}: cannot be read ({reason}): fetch it again") from error
    raise HostError(f"PSF model {name}: has no table with a column PSF_MASK: give a PsfEx model")


def _model(spec: str, unit: Any, columns: list[str], detector: str) -> PsfExModel:
    row = _row(spec, unit, columns, detector)
    known: dict[str, Any] = {key.lower(): value for key, value in unit.header.items()}
    known |= {name: unit.data[name][row] for name in columns if unit.data[name].dtype.kind != "O"}
    degree = int(known.get("poldeg1", 0))
    if int(known.get("polngrp", 1)) > 1 or int(known.get("polnaxis", 2)) not in (0, 2):
        raise HostError(
            f"PSF model {spec}: its polynomial has {known.get('polnaxis')} variables in "
            f"{known.get('polngrp')} groups: give one in X_IMAGE and Y_IMAGE"
        )
    names = tuple(str(known.get(f"polname{i}", _PLACE_NAMES[0][i - 1])).strip() for i in (1, 2))
    if names not in _PLACE_NAMES:
        raise HostError(
            f"PSF model {spec}: is a polynomial in {' and '.join(names)}, not in X_IMAGE and Y_IMAGE"
        )
    terms = (degree + 1) * (degree + 2) // 2
    # merged files pad with empty images where another detector has more terms
    mask = np.asarray(unit.data["psf_mask"][row], dtype=np.float64)
    if mask.ndim != 3 or len(mask) < terms or mask.shape[1] != mask.shape[2] or mask.shape[1] % 2 == 0:
        raise HostError(
            f"PSF model {spec}: PSF_MASK has shape {mask.shape}, a polynomial of degree {degree} has {terms} "
            "square images of odd side: give another model"
        )
    if not np.isfinite(mask).all():
        raise HostError(f"PSF model {spec}: holds NaN or infinity: give another model")
    zero, scale = (tuple(float(known.get(f"{key}{i}", d)) for i in (1, 2)) for key, d in _PLACE_KEYS)
    return PsfExModel(
        spec,
        mask[:terms],
        (zero[0], zero[1]),
        (scale[0], scale[1]),
        degree,
        float(known.get("psf_samp", 1.0)),
    )


_PLACE_KEYS = (("polzero", 0.0), ("polscal", 1.0))


def _row(spec: str, unit: Any, columns: list[str], detector: str) -> int:
    if "ccdname" not in columns:
        if detector:
            raise HostError(
                f"PSF model {spec}: its table names no detectors (CCDNAME): leave #{detector} out"
            )
        return 0
    names = [str(name).strip() for name in unit.data["ccdname"]]
    if detector in names:
        return names.index(detector)
    if detector or len(names) > 1:
        listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        raise HostError(f"PSF model {spec}: holds detectors {listed}: name one, FILE#{names[0]}")
    return 0


@dataclass(frozen=True)
class PsfExModels:
    """A model for each band."""

    models: tuple[PsfExModel, ...]

    @classmethod
    def read(cls, paths: Mapping[str, str], bands: str) -> PsfExModels:
        """Read the models of the bands.

        Raises
        ------
        HostError
            As :func:`read_psfex`; or a band has none.
        """
        absent = [band for band in bands if band not in paths]
        if absent:
            raise HostError(f"no PSF model for band {absent[0]}: give one a band in [psfex]")
        return cls(tuple(read_psfex(paths[band]) for band in bands))

    def images_at(self, x_image: float, y_image: float) -> NDArray[np.float32]:
        """PSFs (bands, side, side), those of smaller models framed with zeros; see ``PsfExModel.image_at``.

        Raises
        ------
        HostError
            The place is not known (NaN), or as ``image_at``.
        """
        if math.isnan(x_image) or math.isnan(y_image):
            raise HostError(
                "its place on the detector is not known, which PsfEx models need: add X_IMAGE and Y_IMAGE "
                "(pixels from 1) to its header, or cut it out of the exposure by positions"
            )
        images = [model.image_at(x_image, y_image) for model in self.models]
        side = max(len(image) for image in images)
        framed = [np.pad(image, (side - len(image)) // 2) for image in images]
        return np.stack(framed).astype(np.float32)
