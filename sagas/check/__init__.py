"""Reads the source of sagas before they run: which steps they use, what cannot work, and when a body has changed."""
