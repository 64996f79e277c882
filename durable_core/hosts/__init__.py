"""Runs on another engine's durability: the port that a host drives, without a store, a task, a timer or a thread."""
