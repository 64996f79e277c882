"""What all tests share: how hard Hypothesis searches.

``HYPOTHESIS_PROFILE=thorough make test`` searches longer; a failure prints the line that reproduces it.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,  # a shared machine is slow at times, and that is no bug
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
