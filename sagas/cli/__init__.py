"""The command line of sagas: run workers, start and look at sagas, and mend what needs a person."""

from sagas.cli.app import main

__all__ = ["main"]
