"""Benchmarks: cases as data, and a runner that validates before it times."""
