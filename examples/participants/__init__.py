"""What the example applications share: services with databases of their own, clients, and a stage to play on."""
