"""How an engine runs."""

import attrs


@attrs.frozen(kw_only=True)
class Settings:
    """How an engine runs; every field has a default that suits one process on one file."""

    worker: bool = True
    """Whether it executes runs; False only starts and observes."""
    concurrency: int = attrs.field(default=1000, validator=attrs.validators.ge(1))
    """Runs that may have something under way at once."""
    grace_s: float = 10.0
    """How long leaving waits for attempts under way."""
    store_timeout_s: float = 30.0
    """How long a call waits for a store that fails."""
    max_crashes: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    """After so many deaths of the process within one step the run is stuck."""
    retention_ns: int | None = None
    """How long ended runs are kept; None is for ever. Only workers purge."""
    id_retention_ns: int | None = 90 * 86_400 * 1_000_000_000
    """How long the ids of purged runs stay refused; None is for ever."""
