"""Frozen data and pure functions of sagas: declarations, outcomes, the order of an undo, what is shown."""
