"""Benchmarks: what the targets in docs/explanation/speed.md are measured by. Run with ``make bench``."""
