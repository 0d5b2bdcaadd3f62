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


@jit
def apply_gaussians(spectrum, sigmas_pix, response, nodes_per_pixel, scales, line, out):
    """Write ``spectrum`` times a scale, a Gaussian's transform and the separable ``response`` to each band.

    exp(-2 pi^2 sigma^2 k^2). ``sigmas_pix``, ``scales`` and ``out`` have one entry a band.

    Spectra are given as their real type, real and imaginary parts in turn: a complex number times a real one
    would be compiled as a product of two complex ones. ``response`` holds one factor per frequency bin and
    axis; ``line`` is scratch, twice as long as an axis.
    """
    size, double_half = spectrum.shape
    for band in range(out.shape[0]):
        falloff = -2.0 * np.pi**2 * sigmas_pix[band] ** 2
        for j in range(size // 2 + 1):
            k = frequency(j, size, nodes_per_pixel)
            line[2 * j] = line[2 * j + 1] = response[j] * np.exp(falloff * k * k)
        scale = line.dtype.type(scales[band])
        for j in range(size):
            row = line[2 * min(j, size - j)] * scale
            source, target = spectrum[j], out[band, j]
            for i in range(double_half):
                target[i] = source[i] * (row * line[i])


@jit
def apply_radials(
    spectrum, radii_pix, table, nodes_per_unit, response, nodes_per_pixel, scales, quarter, line, out
):
    """Write ``spectrum`` times a scale, a radial transform and the separable ``response`` to each band.

    The transform is ``table`` at z = 2 pi k ``radii_pix`` (for a Moffat, its alpha), by linear interpolation;
    beyond the table's end, its last value. It is looked up for an eighth of the frequencies: swapping the
    axes or the sign of one changes nothing.

    Arguments as those of ``apply_gaussians``; ``quarter`` is scratch, (size // 2 + 1) squared.
    """
    size, double_half = spectrum.shape
    half = size // 2 + 1
    real = line.dtype.type
    end, last = real(table.size - 1), np.int32(table.size - 2)
    for band in range(out.shape[0]):
        to_node = real(2.0 * np.pi * radii_pix[band] * nodes_per_unit * nodes_per_pixel / size)
        scale = real(scales[band])
        for j in range(half):
            across = quarter[j]
            row = response[j] * scale
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
        for j in range(half):
            for i in range(half):
                line[2 * i] = line[2 * i + 1] = quarter[j, i]
            source, target = spectrum[j], out[band, j]
            for i in range(double_half):
                target[i] = source[i] * line[i]
            if 0 < j < size - j:
                source, target = spectrum[size - j], out[band, size - j]
                for i in range(double_half):
                    target[i] = source[i] * line[i]


@jit
def apply_images(spectrum, transforms, response, scales, out):
    """Write ``spectrum`` times a scale, a PSF image's transform and ``response`` to each band.

    Arguments as those of ``apply_gaussians``; ``transforms`` are real and imaginary parts in turn, too.
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
