"""How garbage is collected in a process that is a worker and nothing else; a user's own process is left as it is."""

import gc

FIRST, SECOND, THIRD = 10_000, 20, 10
"""A saga ends without circular references, so collections mostly find nothing. Measured with W2: 31 of 178 µs a saga
with Python's own thresholds, 10 of 158 with these; what a step's own circles hold until then is 10,000 objects."""

PYTHONS_OWN = frozenset({(700, 10, 10), (2000, 10, 10), (2000, 10, 0)})
"""What Python begins with: the first until 3.12, one of the others later."""


def settle() -> None:
    """Look no more at what is there now: it lives as long as the process. And look less often at what comes.

    Thresholds that a module of the user's has set stay as they are.
    """
    gc.collect()
    gc.freeze()
    if gc.get_threshold() in PYTHONS_OWN:
        gc.set_threshold(FIRST, SECOND, THIRD)
