"""CPython's own asyncio tests, run against oxloop.

The tests are those of the running interpreter (``test.test_asyncio``): nothing of them is kept
here, so each Python version is measured by its own. ``python -m tests.conformance --help`` says
how to run them by hand; ``test_conformance.py`` runs them under pytest. The files in
``expectations/`` name every test that does not pass, with the reason; what of that a user can
notice is in ``docs/compatibility.md``.
"""
