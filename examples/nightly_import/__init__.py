"""A nightly import on the durable core alone: it waits, polls, fans out, asks, loads, and survives kill -9."""
