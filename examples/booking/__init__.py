"""Trips of a car, a room and a seat, booked whole or not at all: one saga as a graph, and the same one as code."""
