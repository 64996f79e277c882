"""The scenes on Temporal, each task derived anew from its history alone."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from sagas.model.definition import SagaDef
from tests.hosts.like_our_engine import LikeOurEngine
from tests.hosts.stage import Stage
from tests.hosts.temporal.stage import needs_temporal, on_temporal

pytestmark = needs_temporal


class TestLikeOurEngine(LikeOurEngine):
    """The scenes on Temporal."""

    def on_host(self, folder: Path, *sagas: SagaDef[..., Any]) -> AbstractAsyncContextManager[Stage]:
        """See ``LikeOurEngine``."""
        return on_temporal(folder, *sagas)
