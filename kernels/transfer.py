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

    exp(-2 pi^2 sigma^2 k^2); ``response`` holds one factor per frequency bin and axis, ``line`` is scratch;
    both have the spectrum's own real type, which is what the products are done in. ``sigmas_pix``, ``scales``
    and ``out`` have one entry a band.
    """
    size, half = spectrum.shape
    for band in range(out.shape[0]):
        falloff = -2.0 * np.pi**2 * sigmas_pix[band] ** 2
        for j in range(size // 2 + 1):
            k = frequency(j, size, nodes_per_pixel)
            line[j] = response[j] * np.exp(falloff * k * k)
        for j in range(size // 2 + 1, size):
            line[j] = line[size - j]
        scale = line.dtype.type(scales[band])
        for j in range(size):
            row = line[j] * scale
            source, target = spectrum[j], out[band, j]
            for i in range(half):
                target[i] = source[i] * (row * line[i])


@jit
def apply_radial(spectrum, radius_pix, table, nodes_per_unit, response, nodes_per_pixel, scale, line, out):
    """Write ``spectrum`` times scale, a radial transform and the separable ``response`` to ``out``.

    The transform is ``table`` at z = 2 pi k ``radius_pix`` (for a Moffat, radius_pix is its alpha), by linear
    interpolation; 0 beyond the table's end. Rows j and size - j share their factors.
    """
    size, half = spectrum.shape
    to_node = 2.0 * np.pi * radius_pix * nodes_per_unit * nodes_per_pixel / size
    last = np.uint32(table.size - 2)
    for j in range(size // 2 + 1):
        row = response[j] * scale
        for i in range(half):
            position = to_node * np.sqrt(line.dtype.type(i * i + j * j))
            node = min(np.uint32(position), last)
            weight = min(position - line.dtype.type(node), line.dtype.type(1.0))
            line[i] = row * response[i] * (table[node] + weight * (table[node + np.uint32(1)] - table[node]))
        for i in range(half):
            out[j, i] = spectrum[j, i] * line[i]
        if 0 < j < size - j:
            for i in range(half):
                out[size - j, i] = spectrum[size - j, i] * line[i]


@jit
def apply_image(spectrum, transform, response, scale, out):
    """Write ``spectrum`` times scale, a PSF image's ``transform`` and ``response`` to ``out``."""
    size, half = spectrum.shape
    for j in range(size):
        row = response[j] * scale
        for i in range(half):
            out[j, i] = spectrum[j, i] * transform[j, i] * (row * response[i])


@jit
def crop(images, first, stride, out):
    """Copy every ``stride``-th node from ``first`` on of every line of ``images`` to ``out``."""
    for b in range(out.shape[0]):
        for j in range(out.shape[1]):
            for i in range(out.shape[2]):
                out[b, j, i] = images[b, j, first + i * stride]
