"""What a loop reported during a test: calls of its exception handler and errors in asyncio's log."""

from __future__ import annotations

import logging
from typing import Any, Dict, List

Context = Dict[str, Any]


class Reports(logging.Handler):
    """Collects what nobody may overlook; a test takes what it expects, the rest fails it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.contexts: List[Context] = []
        self.records: List[logging.LogRecord] = []

    def __call__(self, loop: Any, context: Context) -> None:
        """Be a loop's exception handler."""
        self.contexts.append(context)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep an error that asyncio's logger was given."""
        self.records.append(record)

    def take(self) -> List[Context]:
        """The exception handler's contexts so far, which are expected then."""
        taken, self.contexts = self.contexts, []
        return taken

    def take_one(self) -> Context:
        """The only context so far."""
        taken = self.take()
        assert len(taken) == 1, taken
        return taken[0]

    def take_log(self) -> List[str]:
        """The messages of the errors that were logged so far, which are expected then."""
        taken, self.records = self.records, []
        return [record.getMessage() for record in taken]

    def unexpected(self) -> List[Any]:
        """What no test has taken."""
        return [*self.contexts, *(record.getMessage() for record in self.records)]
