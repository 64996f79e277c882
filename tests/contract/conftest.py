"""The suites live in the package, so pytest is told to explain their asserts too."""

import pytest

pytest.register_assert_rewrite(
    "durable_core.testing.store_checkup_rules",
    "durable_core.testing.store_claim_rules",
    "durable_core.testing.store_commit_rules",
    "durable_core.testing.store_contract",
    "durable_core.testing.store_purge_rules",
    "durable_core.testing.store_rows",
)
