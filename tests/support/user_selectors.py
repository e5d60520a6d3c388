"""Selectors of a user's own: pure Python, so that a loop can only honour them through their methods."""

from __future__ import annotations

import selectors
from collections import deque
from typing import Any, Deque, List, Mapping, Optional, Tuple


class UserSelector(selectors.BaseSelector):
    """A selector that is no stdlib class, and writes down what the loop asked of it lately."""

    def __init__(self) -> None:
        self.calls: Deque[Tuple[str, Any, Any]] = deque(maxlen=200)
        self._inner = selectors.SelectSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file object."""
        self.calls.append(("register", events, fileobj))
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching."""
        self.calls.append(("unregister", None, fileobj))
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch for something else."""
        self.calls.append(("modify", events, fileobj))
        return self._inner.modify(fileobj, events, data)

    def select(self, timeout: Optional[float] = None) -> List[Tuple[selectors.SelectorKey, int]]:
        """Wait."""
        self.calls.append(("select", timeout, None))
        return self._inner.select(timeout)

    def close(self) -> None:
        """Be of no more use."""
        self.calls.append(("close", None, None))
        self._inner.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """What is watched."""
        return self._inner.get_map()

    def named(self, name: str, fileobj: Any = None) -> List[Any]:
        """The arguments of the calls of one method, for one file object if it is given."""
        return [
            argument
            for called, argument, about in self.calls
            if called == name and fileobj in (None, about)
        ]


class CountingSelectSelector(selectors.SelectSelector):
    """A stdlib selector with a method of the user's: it counts its waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def select(self, timeout: Optional[float] = None) -> List[Tuple[selectors.SelectorKey, int]]:
        """Count, then wait."""
        self.waits += 1
        return super().select(timeout)
