"""The engine: a store, a writer and a worker on asyncio, around the pure core in ``replay``."""
