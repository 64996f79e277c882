"""Assertions of the stage say what differs."""

import pytest

pytest.register_assert_rewrite("tests.hosts.temporal.stage")
