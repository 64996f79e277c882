"""The command line of sagas: run workers, start and inspect sagas, and help those that are stuck."""

from sagas.cli.app import main

__all__ = ["main"]
