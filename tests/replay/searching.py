"""How random sagas are searched here: the cases that cover what must be covered are listed, and chance adds others.

A run of all tests adds a few, ``SAGAS_SOAK`` as many as Hypothesis is set to; ``HYPOTHESIS_PROFILE=thorough`` has more.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hypothesis import example, settings

Test = TypeVar("Test", bound=Callable[..., Any])

SHARE = 1 if "SAGAS_SOAK" in os.environ else 5
some = settings(max_examples=settings.default.max_examples // SHARE)


def covering(*cases: Mapping[str, Any]) -> Callable[[Test], Test]:
    """Try these arguments in every run."""

    def decorate(test: Test) -> Test:
        for case in cases:
            test = example(**case)(test)
        return test

    return decorate
