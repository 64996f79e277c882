"""A step's own arguments as its compensation or probe is given them: complete, with the step's defaults.

Invariant: what the step was called without is what its own signature says, never what another function's default does.
"""

import inspect
from collections.abc import Callable
from typing import Any

Call = tuple[tuple[Any, ...], dict[str, Any]]
NAMED = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def completer(
    signature: inspect.Signature, fn: Callable[..., Any]
) -> Callable[[tuple[Any, ...], dict[str, Any]], Call]:
    """How a call of the step becomes one of ``fn``, its compensation or probe, without the result before it.

    Args:
        signature: of the step, without what somebody else fills.
        fn: a keyword-only argument of the step that it does not take is left out.
    """
    parameters = inspect.signature(fn).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    taken = frozenset(parameter.name for parameter in parameters if parameter.kind in NAMED)

    def complete(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        return call.args, {name: value for name, value in call.kwargs.items() if takes_all or name in taken}

    return complete
