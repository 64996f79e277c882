"""A shop whose orders span three services, each with a database of its own, kept consistent by a saga."""
