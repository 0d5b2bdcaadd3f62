"""Bits of the Legacy Surveys' MASKBITS that matter to hosts (legacysurvey.org/dr10/bitmasks)."""

# outside the primary brick area, bright star, SATUR_G/R/Z, ALLMASK_G/R/Z, bailout, medium star
BAD_MASKBITS = (0, 1, 2, 3, 4, 5, 6, 7, 10, 11)
SATURATED_MASKBITS = (2, 3, 4)
