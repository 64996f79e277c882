"""How a type of your own is stored: ``sagas.codec.register``."""

from durable_core import register_type as register

__all__ = ["register"]
