"""The application as oxloop_application has it, on asyncio."""

from .application import application  # noqa: F401
