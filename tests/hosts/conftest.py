"""Assertions that hosts share say what differs."""

import pytest

pytest.register_assert_rewrite("tests.hosts.stage", "tests.hosts.like_our_engine", "tests.hosts.temporal.stage")
