"""Judge the templates of a bank: what would be injected with them besides a galaxy.

A template with a pedestal puts a square of light into the lens plane; one that is cut off puts an edge there;
one drowned in noise puts noise there. Lensing magnifies all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcforge.engine.remedies import MAD_TO_SIGMA
from arcforge.engine.source_bank import Template, growth, half_light_radius_pix

Floats = NDArray[np.float64]

# A constant at the border's level may hold this share of a template's light: closely cut galaxies of COSMOS
# reach 0.35 by their own wings, noise that was clipped or squared makes 0.6 and more.
MOST_PEDESTAL = 0.5
MOST_EDGE = 0.05  # mean brightness of the outermost pixels over the peak
LEAST_SNR = 10.0
MOST_HOLE = 0.2
# Light out to some radius may exceed the whole by this share: what lies farther out is darker than the sky,
# and a lens that magnifies it more than the middle makes arcs of negative flux.
MOST_DARK = 0.25
LEAST_REFF_PIX = 0.8
_RING = 2  # pixels of the border that are looked at
_CLIPPED_SHARE = 0.25  # of border pixels at exactly one value: noise cut off at zero
_FADE_PIX = 4


@dataclass(frozen=True)
class TemplateReport:
    """What was measured on one template."""

    source_id: str
    reff_arcsec: float
    pedestal: float  #: share of the light that a constant at the border's level makes up
    edge: float  #: mean of the border over the peak
    snr: float  #: of the light within two half-light radii
    clipped: bool  #: the border's noise has no negative half
    hole: float  #: darkest spot below the border's level, over the peak
    dark: float  #: light that the darkness around it takes off again, over the whole
    duplicate_of: str  #: "" where there is none
    fault: str  #: why it is refused, "" where it is not


@dataclass
class BankReport:
    """All templates of a bank."""

    templates: list[TemplateReport] = field(default_factory=list)

    @property
    def refused(self) -> list[TemplateReport]:
        """Those with a fault."""
        return [each for each in self.templates if each.fault]

    def summary(self) -> str:
        """How many are refused, why, and the first."""
        refused = self.refused
        if not refused:
            return f"{len(self.templates)} templates, none refused"
        kinds: dict[str, int] = {}
        for each in refused:
            kind = each.fault.split(" (")[0]
            kinds[kind] = kinds.get(kind, 0) + 1
        counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        first = refused[0]
        return (
            f"{len(refused)} of {len(self.templates)} templates refused: {counted}; the first is source "
            f"{first.source_id}: {first.fault}"
        )


def audit_bank(templates: Sequence[Template], *, clean: bool = False) -> tuple[list[Template], BankReport]:
    """Measure every template, and return those that may be used.

    Parameters
    ----------
    templates
        As they were read.
    clean
        Take the border's level off and fade the outermost pixels out before judging.

    Returns
    -------
    list of Template, BankReport
    """
    report = BankReport()
    kept = []
    seen: dict[bytes, str] = {}
    for template in templates:
        used = cleaned(template) if clean else template
        # one-sided noise stays one-sided, whatever is taken off: judged before it is cleaned
        clipped = _is_clipped(template.pixels[_border(template.pixels.shape)].astype(np.float64))
        found = _measure(used, seen, clipped)
        report.templates.append(found)
        if not found.fault:
            kept.append(used)
    return kept, report


def _measure(template: Template, seen: dict[bytes, str], clipped: bool) -> TemplateReport:
    pixels = template.pixels.astype(np.float64)
    name = template.source_id
    if not np.isfinite(pixels).all():
        return TemplateReport(name, *(math.nan,) * 4, False, *(math.nan,) * 2, "", "NaN (repair it)")
    border = pixels[_border(pixels.shape)]
    total = pixels.sum()
    level, noise = float(np.median(border)), _noise(template, border)
    share = float(level * pixels.size / total) if total > 0 else math.inf
    edge = float(border.mean() / pixels.max()) if pixels.max() > 0 else math.inf
    if clipped and total > 0:  # the median of clipped noise is 0, its mean is the pedestal
        share = max(share, float(border.mean() * pixels.size / total))
    reff = half_light_radius_pix(pixels) if total > 0 else math.nan
    snr = _signal_to_noise(pixels - level, 2.0 * reff, noise) if total > 0 else 0.0
    hole = _hole(pixels - level)
    twin = seen.setdefault(_fingerprint(pixels), name)
    twin = "" if twin == name else twin
    reff_arcsec = reff * template.pixscale_arcsec
    dark = _darkness(pixels) if total > 0 else math.inf
    found = TemplateReport(name, reff_arcsec, share, edge, snr, clipped, hole, dark, twin, "")
    return replace(found, fault=_fault(found, reff))


def _fault(found: TemplateReport, reff: float) -> str:
    share, twin = found.pedestal, found.duplicate_of
    if found.clipped:
        return f"pedestal (its noise is clipped at zero, which leaves {share:.0%} of its light as a pedestal)"
    if share > MOST_PEDESTAL:
        return f"pedestal (a constant holds {share:.0%} of its light, allowed: {MOST_PEDESTAL:.0%})"
    if found.edge > MOST_EDGE:
        return (
            f"light at its edge ({found.edge:.1%} of the peak, allowed: {MOST_EDGE:.0%}: cut it out larger)"
        )
    if found.snr < LEAST_SNR:
        return f"too faint (signal to noise {found.snr:.1f}, allowed: from {LEAST_SNR:g} on)"
    if found.hole > MOST_HOLE:
        return f"hole (a spot {found.hole:.0%} of the peak below its border: a neighbour taken off badly)"
    if found.dark > MOST_DARK:
        return _too_dark(found.dark)
    if not reff >= LEAST_REFF_PIX:
        return f"unresolved (half-light radius {reff:.2f} pixels: a hot pixel or a star)"
    return f"duplicate (the same pixels as source {twin})" if twin else ""


def _too_dark(dark: float) -> str:
    return (
        f"dark surroundings (they take off {dark:.0%} of its light, allowed: {MOST_DARK:.0%}: its sky was "
        "subtracted too high)"
    )


def _darkness(pixels: Floats) -> float:
    """How far the light within some radius of the middle exceeds the whole, over the whole."""
    within = growth(pixels)
    return float(within.max() / within[-1] - 1.0) if within[-1] > 0.0 else math.inf


def judge_prepared(template: Template, report: BankReport) -> bool:
    """Return whether a template may be used as it was made ready; if not, say so in the bank's report.

    Dividing the PSF out and cutting the sky away change what surrounds a galaxy.
    """
    dark = _darkness(template.pixels.astype(np.float64))
    if dark <= MOST_DARK:
        return True
    at = next(k for k, each in enumerate(report.templates) if each.source_id == template.source_id)
    report.templates[at] = replace(report.templates[at], dark=dark, fault=_too_dark(dark))
    return False


def _hole(pixels: Floats) -> float:
    """Darkest mean of 7 x 7 pixels (of 3 x 3 in a small image) over the brightest."""
    from scipy.ndimage import uniform_filter

    smooth = uniform_filter(pixels, 7 if min(pixels.shape) > 28 else 3, mode="nearest")
    return float(max(0.0, -smooth.min()) / smooth.max()) if smooth.max() > 0.0 else math.inf


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    border = np.ones(shape, dtype=np.bool_)
    border[_RING:-_RING, _RING:-_RING] = False
    return border


def _noise(template: Template, border: Floats) -> float:
    if template.noise_variance > 0.0:
        return math.sqrt(template.noise_variance)
    return float(MAD_TO_SIGMA * np.median(np.abs(border - np.median(border))))


def _is_clipped(border: Floats) -> bool:
    """Noise about a level has a negative half: here many pixels share the lowest value and others do not."""
    lowest = border.min()
    at_lowest = float((border == lowest).mean())
    spread = float(np.std(border))
    if spread == 0.0:
        return False  # noise-free
    return at_lowest >= _CLIPPED_SHARE and float((border > lowest + 0.5 * spread).mean()) > 0.1


def _signal_to_noise(pixels: Floats, radius: float, noise: float) -> float:
    y, x = np.indices(pixels.shape)
    at = np.unravel_index(int(np.argmax(pixels)), pixels.shape)
    inside = np.hypot(y - at[0], x - at[1]) <= max(radius, 1.0)
    if noise == 0.0:
        return math.inf
    return float(pixels[inside].sum() / (noise * math.sqrt(inside.sum())))


def _fingerprint(pixels: Floats) -> bytes:
    """Equal for copies that differ in scale and turned by quarters or mirrored."""
    import hashlib

    scaled = np.round(pixels / np.abs(pixels).max(), 4)
    turned = [np.rot90(m, k) for m in (scaled, scaled[:, ::-1]) for k in range(4)]
    return min(
        hashlib.blake2b((np.ascontiguousarray(t) + 0.0).tobytes(), digest_size=16).digest() for t in turned
    )


def cleaned(template: Template) -> Template:
    """The template less its border's level, faded out to zero over the outermost pixels."""
    pixels = template.pixels.astype(np.float64)
    border = pixels[_border(pixels.shape)]
    pixels -= border.mean() if _is_clipped(border) else np.median(border)
    ramps: list[Any] = []
    for n in pixels.shape:
        at = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / _FADE_PIX
        ramps.append(np.where(at < 1.0, np.sin(0.5 * np.pi * np.minimum(at, 1.0)) ** 2, 1.0))
    return replace(template, pixels=(pixels * np.outer(*ramps)).astype(np.float32))
