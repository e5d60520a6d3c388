"""Lifecycles of everything that a loop offers, with faults, to find what is left behind.

`scripts/soak.py` runs them for hours, `tests/test_soak.py` for a moment.
"""
