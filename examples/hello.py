"""The change of one line: `oxloop.run` where `asyncio.run` stood.

python examples/hello.py
"""

import asyncio

import oxloop


async def main() -> None:
    """Anything that asyncio can do; here, two coroutines that wait at the same time."""
    greetings = await asyncio.gather(greet("hello", 0.02), greet("world", 0.01))
    print(*greetings)
    print("on", type(asyncio.get_running_loop()).__module__.partition(".")[0])


async def greet(word: str, delay: float) -> str:
    """Return a word after `delay` seconds."""
    await asyncio.sleep(delay)
    return word


if __name__ == "__main__":
    oxloop.run(main())
