"""Short float32 exp, log (to both bases), atan, atanh and power that the compiler can put into vector lanes.

The llvmlite that pip installs has no vector maths library, so ``math.exp`` in a loop is a scalar call and
keeps the whole loop scalar. These are branch-free: range reduction by bit operations, one minimax polynomial
each (coefficients by the Remez exchange in 40 digits, relative weight), selects instead of
branches. They are total: no argument makes them trap, and the arguments outside the stated range saturate.

Largest errors over the stated range, found on 1e8 arguments a function, checked in ``tests/test_math32.py``:

========  ==========================  =======
function  range                       error
========  ==========================  =======
exp       [-87, 88]; below gives 0    1.4 ulp
exp2      [-126, 127]; clamped there  2.4 ulp
log       every positive normal       1.5 ulp
log2      every positive normal       3.5 ulp
log1p     [-0.99, 3e38]               2.8 ulp
atan      every finite                1.9 ulp
atanh     |x| <= 1 - 2e-7             3.4 ulp
pow       x normal, |y log x| <= 87   2.8 ulp
========  ==========================  =======

They hold with and without fused multiply-add; with it exp is good to 1.1 ulp, the others as stated.
"""

import numpy as np

from arcforge.kernels._jit import inline

F = np.float32
_ZERO, _HALF, _ONE, _TWO = F(0.0), F(0.5), F(1.0), F(2.0)
_LOG2E = F(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = F(0.693359375), F(-2.12194440e-4)  # 9 significant bits: n * high is exact
_HALF_PI = F(1.5707963267948966)
_HIGH_HALF = np.int32(-4096)  # the first 12 bits of a mantissa
_SQRT2_MANTISSA = np.int32(0x3F3504F3)  # bits of sqrt(1/2)


# Every integer step is cast back to 32 bits: numba widens int32 arithmetic to 64, and a vector of those is
# half as wide (a third of the whole ray, when it was so).


@inline
def _power_of_two(n):
    """Return 2^n for a whole n in [-126, 127]."""
    return np.int32(np.int32(np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@inline
def _exponent(bits):
    """Return n of the number's form m 2^n with m in [sqrt(1/2), sqrt(2))."""
    return np.int32(np.int32(bits - _SQRT2_MANTISSA) >> np.int32(23))


@inline
def _exp_near_zero(r):
    """Return e^r for |r| <= log(2) / 2."""
    p = F(1.38368590e-3)
    p = p * r + F(8.37481612e-3)
    p = p * r + F(4.16682253e-2)
    p = p * r + F(1.66664202e-1)
    p = p * r + F(4.99999921e-1)
    p = p * r + _ONE
    return p * r + _ONE


@inline
def exp(x):
    """Return e^x; 0 below -87, and the value at 88 above it."""
    low = x < F(-87.0)
    x = min(max(x, F(-87.0)), F(88.0))
    n = np.floor(x * _LOG2E + _HALF)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    return _ZERO if low else _exp_near_zero(r) * _power_of_two(n)


@inline
def _log_mantissa(t):
    """Return log(1 + t) for t in [sqrt(1/2) - 1, sqrt(2) - 1], accurate relative to the result."""
    p = F(8.72233255e-2)
    p = p * t + F(-1.43668457e-1)
    p = p * t + F(1.49522788e-1)
    p = p * t + F(-1.65623943e-1)
    p = p * t + F(1.99568322e-1)
    p = p * t + F(-2.50020739e-1)
    p = p * t + F(3.33341857e-1)
    p = p * t + F(-4.99999880e-1)
    return t + t * t * p


@inline
def log(x):
    """Return the natural logarithm of a positive, normal number."""
    bits = F(x).view(np.int32)
    exponent = _exponent(bits)
    mantissa = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32)
    n = F(exponent)
    return n * _LN2_HIGH + (n * _LN2_LOW + _log_mantissa(mantissa - _ONE))


@inline
def exp2(x):
    """Return 2^x; the values at -126 and 127 outside."""
    x = min(max(x, F(-126.0)), F(127.0))
    n = np.floor(x + _HALF)
    r = x - n
    r2 = r * r
    # the polynomial in pairs of terms (Estrin), half as deep a chain of operations as Horner's form
    p = (_ONE + F(0.693146978) * r) + r2 * (
        (F(0.240222424) + F(0.0555073342) * r) + r2 * (F(9.67149840e-3) + F(1.32647661e-3) * r)
    )
    return p * _power_of_two(n)


@inline
def log2(x):
    """Return the base-2 logarithm of a positive, normal number."""
    bits = F(x).view(np.int32)
    exponent = _exponent(bits)
    t = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32) - _ONE
    t2 = t * t
    low = (F(1.442695004) + F(-0.7213473469) * t) + t2 * (F(0.4809106436) + F(-0.3607036802) * t)
    high = (F(0.2879162288) + F(-0.2389448405) * t) + t2 * (F(0.2157157853) + F(-0.207269771) * t)
    t4 = t2 * t2
    return F(exponent) + t * (low + t4 * (high + t4 * F(0.1258366591)))


@inline
def log1p(x):
    """Return log(1 + x) for x > -1, accurate relative to the result also where x is tiny."""
    u = _ONE + x
    bits = F(u).view(np.int32)
    exponent = _exponent(bits)
    mantissa = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32)
    n = F(exponent)
    # While 1 + x stays in the central octave its mantissa's offset is x itself, before rounding.
    t = x if exponent == 0 else mantissa - _ONE
    return n * _LN2_HIGH + (n * _LN2_LOW + _log_mantissa(t))


@inline
def atan(x):
    """Return the arc tangent, in (-pi/2, pi/2)."""
    a = abs(x)
    big = a > _ONE
    t = _ONE / a if big else a
    s = t * t
    p = F(2.84987896e-3)
    p = p * s + F(-1.60685881e-2)
    p = p * s + F(4.26914573e-2)
    p = p * s + F(-7.50428988e-2)
    p = p * s + F(1.06409323e-1)
    p = p * s + F(-1.42036442e-1)
    p = p * s + F(1.99926194e-1)
    p = p * s + F(-3.33330734e-1)
    value = t + t * s * p
    value = _HALF_PI - value if big else value
    return -value if x < _ZERO else value


@inline
def atanh(x):
    """Return the inverse hyperbolic tangent of |x| < 1."""
    a = abs(x)
    value = _HALF * log1p(_TWO * a / (_ONE - a))
    return -value if x < _ZERO else value


@inline
def _product_of_two(a, b):
    """Return a b and what its rounding lost, with or without fused multiply-add."""
    product = a * b
    a_high = np.int32(F(a).view(np.int32) & _HIGH_HALF).view(np.float32)
    b_high = np.int32(F(b).view(np.int32) & _HIGH_HALF).view(np.float32)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + (a_high * b_low + a_low * b_high)) + a_low * b_low


@inline
def pow(x, y):
    """Return x^y of a positive, normal x, saturating as ``exp`` does; 0 counts as 2^-127.

    The logarithm is a sum of two numbers: of one alone, as in ``exp2(y * log2(x))``, which takes half the
    time, powers near e^87 are off by up to 290 ulp.
    """
    y = min(max(y, F(-1e10)), F(1e10))  # any x but 1 has left the range by then
    bits = F(x).view(np.int32)
    exponent = _exponent(bits)
    n = F(exponent)
    m = np.int32(bits - np.int32(exponent << np.int32(23))).view(np.float32)
    # log(m) = log(c) + 2 atanh(s) with s = (m - c) / (m + c), |s| <= 0.101, for c = 3/4, 1 or 3/2
    is_low, is_high = m < F(0.8660254), m > F(1.2247449)
    c = F(0.75) if is_low else (F(1.5) if is_high else _ONE)
    c_high = F(-0.28759765625) if is_low else (F(0.405517578125) if is_high else _ZERO)  # 12 bits
    c_low = F(-8.441620178e-05) if is_low else (F(-5.247001684e-05) if is_high else _ZERO)
    t, under = m - c, c + m
    under_lost = (m - (under - c)) if m < c else (c - (under - m))
    s = t / under
    product, product_lost = _product_of_two(s, under)
    s_low = ((t - product) - product_lost - s * under_lost) / under
    z = s * s
    p = F(0.14509263184242097)
    p = p * z + F(0.1999865310182312)
    p = p * z + F(0.3333333563618241)
    rest = _TWO * (s_low + s * z * p)
    whole, small = n * _LN2_HIGH + c_high, _TWO * s  # the first is exact, and 0 or larger than the second
    first = whole + small
    low = (small - (first - whole)) + (rest + (n * _LN2_LOW + c_low))
    high = first + low
    low = low - (high - first)
    power, power_lost = _product_of_two(high, y)
    clipped = min(max(power, F(-87.0)), F(88.0))
    k = np.floor(clipped * _LOG2E + _HALF)
    rest = power_lost + low * y if clipped == power else _ZERO
    r = ((clipped - k * _LN2_HIGH) - k * _LN2_LOW) + rest
    return _ZERO if power < F(-87.0) else _exp_near_zero(r) * _power_of_two(k)
