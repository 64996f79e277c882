"""What Temporal takes, as numbers of its default configuration, and the spans that we choose."""

from datetime import timedelta

LARGEST_PAYLOAD = 2_000_000
"""Bytes of one payload: the server takes 2 MiB (limit.blobSize.error), and a codec may need some."""
MOST_EVENTS = 51_200
"""Events of one history (limit.historyCount.error)."""
LARGEST_HISTORY = 40 << 20
"""Bytes of a history beyond which no step begins; the server ends an execution at 50 MiB (limit.historySize.error)."""
EVENTS_A_CALL = 6
"""Events that an attempt costs at most: it is scheduled, started, ended, and so is the workflow task after it."""
SPARE_EVENTS = 500
"""Kept for retries, timers and verbs of a rollback."""
LEASE = timedelta(seconds=15)
GRACE = timedelta(seconds=10)
FOREVER = timedelta(days=3650)
"""An attempt's own timeout is kept by the attempt; a dead worker is noticed by its missing heartbeats."""
