"""asyncio's event loops in Rust."""
