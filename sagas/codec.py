"""How types that we cannot know are stored: ``sagas.codec.register``."""

from durable_core import register_type as register

__all__ = ["register"]
