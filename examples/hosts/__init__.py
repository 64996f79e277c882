"""The examples on engines of others."""
