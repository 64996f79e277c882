"""The order saga on Temporal."""
