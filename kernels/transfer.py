"""PSFs as transfer functions: multiply a spectrum by them and by the response that the grid calls for.

A Gaussian and a Moffat have transforms of their own, so there is no kernel image, nothing truncated and no
centre to misplace. Frequencies k are in cycles per pixel; the grid may hold several nodes a pixel.
"""

import numpy as np

from arcforge.kernels._jit import inline, jit


@inline
def frequency(j, size, nodes_per_pixel):
    """Return the frequency of bin ``j`` of ``size`` [cycles / pix]."""
    signed = j if 2 * j <= size else j - size
    return signed * nodes_per_pixel / size


@inline
def gaussian_quarter(sigma_pix, response, nodes_per_pixel, scale, line, quarter):
    """Write a scale times a Gaussian's transform and the separable ``response``, exp(-2 pi^2 sigma^2 k^2).

    ``quarter`` (half, >= half) is for frequencies from 0 up in both axes, half = size // 2 + 1 of each; what
    lies beyond half is not written. ``response`` (size,) holds one factor per frequency bin and axis;
    ``line`` is scratch, half long.
    """
    half, size = quarter.shape[0], response.size
    falloff = -2.0 * np.pi**2 * sigma_pix**2
    for j in range(half):
        k = frequency(j, size, nodes_per_pixel)
        line[j] = response[j] * np.exp(falloff * k * k)
    for j in range(half):
        row, across = line[j] * line.dtype.type(scale), quarter[j]
        for i in range(half):
            across[i] = row * line[i]


@inline
def radial_quarter(radius_pix, table, nodes_per_unit, response, nodes_per_pixel, scale, quarter):
    """Write a scale times a radial transform and the separable ``response``.

    The transform is ``table`` at z = 2 pi k ``radius_pix`` (for a Moffat, its alpha), by linear
    interpolation; beyond the table's end, its last value. It is looked up for an eighth of the frequencies:
    swapping the axes or the sign of one changes nothing. Other arguments as those of ``gaussian_quarter``.
    """
    half, size = quarter.shape[0], response.size
    real = quarter.dtype.type
    end, last = real(table.size - 1), np.int32(table.size - 2)
    to_node = real(2.0 * np.pi * radius_pix * nodes_per_unit * nodes_per_pixel / size)
    for j in range(half):
        across = quarter[j]
        row = response[j] * real(scale)
        j2 = real(j * j)
        for i in range(j, half):
            i1 = real(np.int32(i))  # 64-bit integers have no vector conversion
            position = min(to_node * np.sqrt(i1 * i1 + j2), end)
            signed = min(np.int32(position), last)
            weight = position - real(signed)
            node = np.uint32(signed)  # an index that needs no test for its sign
            low = table[node]
            across[i] = row * response[i] * (low + weight * (table[node + np.uint32(1)] - low))
        for i in range(j + 1, half):
            quarter[i, j] = across[i]


@jit
def apply_even(
    spectrum, gaussian, widths_pix, table, nodes_per_unit, response, nodes_per_pixel, scales, quarter, line,
    out,
):  # fmt: skip
    """Write ``spectrum`` times a scale and the transform of a PSF that is even in both axes to each band.

    A Gaussian's (``widths_pix`` are sigmas) or that of ``table`` (they are radii). ``widths_pix``, ``scales``
    and ``out`` have one entry a band. Spectra are given as their real type, real and imaginary parts in turn:
    a complex number times a real one would be compiled as a product of two complex ones. ``quarter`` (half,
    half) and ``line``, as long as a spectrum's, are scratch.
    """
    size, double_half = spectrum.shape
    half = size // 2 + 1
    for band in range(out.shape[0]):
        if gaussian:
            gaussian_quarter(widths_pix[band], response, nodes_per_pixel, scales[band], line, quarter)
        else:
            radial_quarter(
                widths_pix[band], table, nodes_per_unit, response, nodes_per_pixel, scales[band], quarter
            )
        for j in range(size):
            for i in range(half):
                line[2 * i] = line[2 * i + 1] = quarter[min(j, size - j), i]
            source, target = spectrum[j], out[band, j]
            for i in range(double_half):
                target[i] = source[i] * line[i]


@jit
def apply_images(spectrum, transforms, response, scales, out):
    """Write ``spectrum`` times a scale, a PSF image's transform and ``response`` to each band.

    Arguments as those of ``apply_even``; ``transforms`` are real and imaginary parts in turn, too.
    ``transforms`` and ``out`` may have a shorter period than ``spectrum``: its highest frequencies are left
    out, and those transforms have to be 0 at their own highest one.
    """
    size, (period, double_half) = spectrum.shape[0], out.shape[1:]
    for band in range(out.shape[0]):
        scale = response.dtype.type(scales[band])
        for j in range(period):
            from_ = j if 2 * j <= period else size - period + j
            row = response[from_] * scale
            source, transform, target = spectrum[from_], transforms[band, j], out[band, j]
            for i in range(double_half // 2):
                a, b, c, d = source[2 * i], source[2 * i + 1], transform[2 * i], transform[2 * i + 1]
                factor = row * response[i]
                target[2 * i] = factor * (a * c - b * d)
                target[2 * i + 1] = factor * (a * d + b * c)
