"""Libraries that people use on asyncio, put to work on oxloop and on asyncio side by side.

``python -m tests.downstream`` runs everything; ``make downstream`` makes the environment first.
``libraries`` is the list. A library has one module, named after it with ``with_`` before it, whose
functions ``check_*`` are the workout; ``child`` is the process in which they run, one library on one
loop; ``services`` are the databases.
"""
