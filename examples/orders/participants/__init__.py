"""The three services that an order needs. Each is a process and a database of its own and knows nothing of sagas."""
