"""Traces: a run's spans as a pure function of its journal, and their way out of the process."""
