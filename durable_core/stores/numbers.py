"""Run numbers, reserved by the block, so that a start need not ask the database for one.

Invariant: a number is handed out once, and a block is taken only once the database has reserved it durably.
"""

from durable_core.errors import StoreError


class RunNumbers:
    """The numbers of one store: a block in use, and a spare one once that is half used."""

    __slots__ = ("_left", "_numbers", "_place", "_size", "_spare")

    def __init__(self, place: str) -> None:
        """``place`` is what errors call the store."""
        self._place = place
        self._size = 0
        self._left = 0
        self._numbers = iter(range(0))
        self._spare = range(0)

    @property
    def low(self) -> bool:
        """Whether the next commit shall reserve a block."""
        return self._left < self._size // 2 and not self._spare

    @property
    def left(self) -> int:
        """How many can be handed out."""
        return self._left + len(self._spare)

    def begin(self, block: range) -> None:
        """Hand out of this block from now on, and of none that was reserved before."""
        self._spare = range(0)
        self._use(block)

    def add(self, block: range) -> None:
        """Keep this block for when the one in use is used up."""
        self._spare = block

    def take(self) -> int:
        """The next number.

        Raises:
            StoreError: all are handed out. It is transient: a commit reserves more.
        """
        if not self._left:
            if not self._spare:
                raise StoreError(
                    f"all {self._size} numbers reserved in {self._place} are handed out, and no commit came "
                    "to reserve more",
                    "Start fewer at a time",
                    transient=True,
                )
            self._use(self._spare)
            self._spare = range(0)
        self._left -= 1
        return next(self._numbers)

    def _use(self, block: range) -> None:
        self._numbers, self._left, self._size = iter(block), len(block), len(block)
