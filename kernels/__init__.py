"""Compiled kernels: arrays in, arrays out. No files, no configuration, no validation, no printing."""
