"""Sagas on engines that a team runs already."""
