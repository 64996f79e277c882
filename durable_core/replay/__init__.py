"""The pure core: drives bodies along their journals. It has no clock, no store and no asyncio."""
