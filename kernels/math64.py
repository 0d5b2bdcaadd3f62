"""Short float64 exp, log, log1p, atan, atanh and power that the compiler can put into vector lanes.

For what float32 cannot hold: deflections to 1e-10 arcsec (``kernels.deflection``). Built as those of
``math32`` are: range reduction by bit operations, one minimax polynomial each, selects instead of branches,
total. Coefficients by the Remez exchange in 50 digits, weighted so that the error is relative to the result,
then rounded to float64; the first terms of every series are exact and stand outside the polynomial.
Conversions between numbers and their bits go through 2^52 (AVX2 has none of 64 bits).

Largest errors over the stated range, found on 1e7 arguments a function against 80-bit arithmetic
(``python -m arcforge.bench.maths --arguments 10000000``), checked in ``tests/test_math64.py``:

========  ==========================  =======
function  range                       error
========  ==========================  =======
exp       [-708, 709]; below gives 0  1.1 ulp
log       every positive normal       0.9 ulp
log1p     [-1 + 3e-16, 1.7e308]       0.9 ulp
atan      every finite                1.9 ulp
atanh     |x| < 1                     2.3 ulp
pow       x normal, |y log x| <= 708  1.4 ulp
========  ==========================  =======

They hold with and without fused multiply-add.
"""

import numpy as np

from arcforge.kernels._jit import inline

_U = np.uint64
_LOG2E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.6931471805598903, 5.497923018708371e-14  # 42 bits: n * high is exact
_THIRD, _THIRD_LOW = 0.3333333333333333, 1.850371707708594e-17
_QUARTER_PI, _QUARTER_PI_LOW = 0.7853981633974483, 3.061616997868383e-17
_TAN_PI_8, _TAN_3_PI_8 = 0.41421356237309503, 2.414213562373095
_LAST_BELOW_ONE = 1.0 - 2.0**-53
_TO_WHOLE = 6755399441055744.0  # 1.5 2^52: added, it leaves the whole number in the lowest bits
_TWO_52 = _U(0x4330000000000000)  # bits of 2^52, whose last bit is worth 1
_BIAS = 4503599627371519.0  # 2^52 + 1023
_ONE_LESS_SQRT_HALF = _U(0x0009_5F61_9980_C433)  # bits of 1 less those of sqrt(1/2)
_HIGH_HALF = _U(0xFFFF_FFFF_F800_0000)  # the first 26 bits of a mantissa
_52, _1023 = _U(52), _U(1023)


@inline
def _split_mantissa(x):
    """Return n and m of a positive, normal number's form m 2^n, m in [sqrt(1/2), sqrt(2))."""
    bits = np.float64(x).view(np.uint64)
    biased = _U(_U(bits + _ONE_LESS_SQRT_HALF) >> _52)  # n + 1023, never negative
    n = np.float64(_U(biased | _TWO_52).view(np.float64)) - _BIAS
    return n, _U(bits - _U(_U(biased - _1023) << _52)).view(np.float64)


@inline
def _exp_of_sum(x, rest):
    """Return e^(x + rest) for x in [-708, 709] and a ``rest`` within its rounding."""
    shifted = x * _LOG2E + _TO_WHOLE
    n = shifted - _TO_WHOLE
    r = ((x - n * _LN2_HIGH) - n * _LN2_LOW) + rest
    p = 2.5000058111460107e-08
    p = p * r + 2.763024841208113e-07
    p = p * r + 2.755758638484012e-06
    p = p * r + 2.4801493098822176e-05
    p = p * r + 0.00019841269506566347
    p = p * r + 0.001388888894363018
    p = p * r + 0.008333333333494468
    p = p * r + 0.041666666666530155
    p = p * r + 0.16666666666666413
    p = p * r + 0.5000000000000011
    power_of_two = _U(_U(np.float64(shifted).view(np.uint64) + _1023) << _52).view(np.float64)
    return (1.0 + (r + r * r * p)) * power_of_two


@inline
def exp(x):
    """Return e^x; 0 below -708, and the value at 709 above it."""
    value = _exp_of_sum(min(max(x, -708.0), 709.0), 0.0)
    return 0.0 if x < -708.0 else value


@inline
def _atanh_rest(z):
    """Return (atanh(s) / s - 1) / z at z = s^2 <= 0.04."""
    p = 0.0693356581283799
    p = p * z + 0.06584994798247677
    p = p * z + 0.07695665048197069
    p = p * z + 0.0909082953749399
    p = p * z + 0.11111112206184688
    p = p * z + 0.1428571427738908
    p = p * z + 0.2000000000003058
    return p * z + 0.3333333333333329


@inline
def _log_of(n, t, rest):
    """Return n log(2) + log(1 + t) + ``rest`` for t in [sqrt(1/2) - 1, sqrt(2) - 1]."""
    s = t / (2.0 + t)
    z = s * s
    half_square = 0.5 * t * t
    # log(1 + t) = 2 atanh(s) = t - t^2 / 2 + s (t^2 / 2 + 2 z rest of atanh)
    small = s * (half_square + 2.0 * z * _atanh_rest(z)) + (n * _LN2_LOW + rest)
    return n * _LN2_HIGH + (t - (half_square - small))


@inline
def log(x):
    """Return the natural logarithm of a positive, normal number."""
    n, m = _split_mantissa(x)
    return _log_of(n, m - 1.0, 0.0)


@inline
def log1p(x):
    """Return log(1 + x) for x > -1, accurate relative to the result also where x is tiny."""
    u = 1.0 + x
    n, m = _split_mantissa(u)
    # In the central octave the mantissa's offset is x itself; elsewhere what 1 + x lost is added again.
    lost = (1.0 - (u - x)) if x > 1.0 else (x - (u - 1.0))
    is_central = n == 0.0
    return _log_of(n, x if is_central else m - 1.0, 0.0 if is_central else lost / u)


@inline
def atan(x):
    """Return the arc tangent, in (-pi/2, pi/2)."""
    a = abs(x)
    is_large, is_middling = a > _TAN_3_PI_8, a > _TAN_PI_8
    # atan(a) = pi/2 + atan(-1/a) = pi/4 + atan((a - 1) / (a + 1)): one division for all three
    over = -1.0 if is_large else (a - 1.0 if is_middling else a)
    under = a if is_large else (a + 1.0 if is_middling else 1.0)
    quarters = 2.0 if is_large else (1.0 if is_middling else 0.0)
    t = over / under
    z = t * t
    p = 0.015207910442157477
    p = p * z + -0.033487000543902266
    p = p * z + 0.04504087497563778
    p = p * z + -0.05218536543927139
    p = p * z + 0.05877042301835929
    p = p * z + -0.06666228848608521
    p = p * z + 0.0769228290010058
    p = p * z + -0.09090908150776097
    p = p * z + 0.11111111088350746
    p = p * z + -0.1428571428539078
    p = p * z + 0.19999999999997692
    p = p * z + -0.33333333333333326
    value = quarters * _QUARTER_PI + (t + (t * z * p + quarters * _QUARTER_PI_LOW))
    return -value if x < 0.0 else value


@inline
def atanh(x):
    """Return the inverse hyperbolic tangent of |x| < 1; beyond, the value at the last number below 1.

    Half the logarithm of (1 + a) / (1 - a) = m 2^n, whose m is never formed: (m - 1) / (m + 1) is one
    division of sums that are exact but for what is carried along.
    """
    a = min(abs(x), _LAST_BELOW_ONE)
    above, below = 1.0 + a, 1.0 - a
    above_lost, below_lost = a - (above - 1.0), (1.0 - below) - a
    # the difference of the bits is near that of the logarithms: m lies in [0.69, 1.48]
    biased = np.float64(above).view(np.uint64) - np.float64(below).view(np.uint64)
    whole = _U(_U(_U(biased) + _U(0x3FF8_0000_0000_0000)) >> _52)
    n = np.float64(_U(whole | _TWO_52).view(np.float64)) - _BIAS
    scale = _U(whole << _52).view(np.float64)
    over = (above - scale * below) + (above_lost - scale * below_lost)
    under = above + scale * below
    s = a if n == 0.0 else over / under
    z = s * s
    value = 0.5 * n * _LN2_HIGH + (s + (s * z * _atanh_rest(z) + 0.5 * n * _LN2_LOW))
    return -value if x < 0.0 else value


@inline
def _sum_of_two(a, b):
    """Return a + b and what its rounding lost."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


@inline
def _product_of_two(a, b):
    """Return a b and what its rounding lost, with or without fused multiply-add."""
    product = a * b
    a_high = _U(np.float64(a).view(np.uint64) & _HIGH_HALF).view(np.float64)
    b_high = _U(np.float64(b).view(np.uint64) & _HIGH_HALF).view(np.float64)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + (a_high * b_low + a_low * b_high)) + a_low * b_low


@inline
def _log_in_two(x):
    """Return the natural logarithm of a positive, normal number as a sum, good to 2^-64 of itself."""
    n, m = _split_mantissa(x)
    t = m - 1.0
    under = 1.0 + m
    under_lost = m - (under - 1.0)
    s = t / under
    product, product_lost = _product_of_two(s, under)
    # 1 / (2 + t) is (1 - s) / 2, so that what the division left needs no other
    s_low = (((t - product) - product_lost) - s * under_lost) * (0.5 - 0.5 * s)
    z, z_low = _product_of_two(s, s)
    z_low += 2.0 * s * s_low
    p = 0.06602347532460896
    p = p * z + 0.06627970372540169
    p = p * z + 0.07693396929414209
    p = p * z + 0.09090891800466527
    p = p * z + 0.11111111264172743
    p = p * z + 0.14285714285027218
    p = p * z + 0.20000000000001172
    # atanh(s) = s + s z (1/3 + z p), each factor in two parts
    w = _THIRD + z * p
    w_low = ((_THIRD - w) + z * p) + _THIRD_LOW
    zw, zw_low = _product_of_two(z, w)
    zw_low += z * w_low + z_low * w
    rest, rest_low = _product_of_two(s, zw)
    rest_low += s * zw_low + s_low * zw
    total, low_a = _sum_of_two(n * _LN2_HIGH, 2.0 * s)
    total, low_b = _sum_of_two(total, 2.0 * rest)
    low = (low_a + low_b) + (2.0 * (s_low + rest_low) + n * _LN2_LOW)
    high = total + low
    return high, low - (high - total)


@inline
def pow(x, y):
    """Return x^y of a positive, normal x, saturating as ``exp`` does; 0 counts as 2^-1023."""
    y = min(max(y, -1e20), 1e20)  # any x but 1 has left the range by then
    high, low = _log_in_two(x)
    exponent, lost = _product_of_two(high, y)
    clipped = min(max(exponent, -708.0), 709.0)
    value = _exp_of_sum(clipped, lost + low * y if clipped == exponent else 0.0)
    return 0.0 if exponent < -708.0 else value
