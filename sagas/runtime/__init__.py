"""Drives a saga on the durable core's public context: forward, back, or parked until a person helps."""
