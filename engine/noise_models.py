"""Kinds of photon noise, and the sky that gains follow from."""

NOISES = ("off", "gaussian", "poisson")
# Sky brightness in mag / arcsec^2 that the Legacy Surveys' exposure times are planned for; i lies between its
# neighbours.
SKY_MAG_ARCSEC2 = {"g": 22.04, "r": 20.91, "i": 19.9, "z": 18.46}
