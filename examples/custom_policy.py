"""A policy of one's own: every loop of the process is made, and prepared, in one place.

    python examples/custom_policy.py

The policy is oxloop's and asyncio's at once, so `asyncio.run`, and a library that asks asyncio
for a loop, follow it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import oxloop


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Print what asyncio would have logged."""
    print("caught:", context["exception"])


class ReportingPolicy(oxloop.DefaultEventLoopPolicy):
    """oxloop's default policy, whose loops report errors of callbacks to us."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_event_loop()
        loop.set_exception_handler(report)
        return loop


async def main() -> None:
    """Let a callback fail: nobody awaits it, so only the loop can tell."""
    loop = asyncio.get_running_loop()
    loop.call_soon(int, "not a number")
    await asyncio.sleep(0)
    print("on", type(loop).__module__.partition(".")[0])


if __name__ == "__main__":
    oxloop.set_event_loop_policy(ReportingPolicy())
    asyncio.run(main())
