"""How rows are given to a statement: each value by itself, or an array for each column.

A value by itself is cheaper on both sides: the driver asks of each element of an array whether it is an array too, and
the server takes arrays apart. But a statement is prepared for one number of values, and for arrays of any length.
"""

from collections.abc import Collection, Mapping, Sequence

import attrs


@attrs.frozen
class Given:
    """The rows as the text of a statement has them."""

    parameters: int
    """How many there are."""
    table: str
    """For FROM; its last column is ``place``, from 1 on."""
    values: Mapping[str, str]
    """What to write for each column of a row."""
    nums: str
    """An array of what all rows have in the column ``num``; empty where they have no such column."""


@attrs.frozen
class Values:
    """So many rows, each value by itself."""

    count: int

    def given(self, columns: Mapping[str, str], *, at: int, alias: str) -> Given:
        """The text for rows of ``columns`` whose first parameter has the number ``at``."""
        width = len(columns)
        rows = [
            [f"${at + row * width + place}::{type_}" for place, type_ in enumerate(columns.values())]
            for row in range(self.count)
        ]
        texts = ", ".join(f"({', '.join(row)}, {place})" for place, row in enumerate(rows, 1))
        names = list(columns)
        return Given(
            self.count * width,
            f"(VALUES {texts}) AS {alias} ({', '.join(names)}, place)",
            {name: f"{alias}.{name}" for name in names},
            f"ARRAY[{', '.join(row[names.index('num')] for row in rows)}]" if "num" in names else "",
        )


@attrs.frozen
class Arrays:
    """Any number of rows, an array for each column but those in which all rows are alike."""

    alike: frozenset[str] = frozenset()

    def given(self, columns: Mapping[str, str], *, at: int, alias: str) -> Given:
        """The text for rows of ``columns`` whose first parameter has the number ``at``."""
        marks = {name: f"${number}::{type_}" for number, (name, type_) in enumerate(columns.items(), at)}
        names = [name for name in columns if name not in self.alike]
        arrays = ", ".join(f"{marks[name]}[]" for name in names)
        return Given(
            len(columns),
            f"unnest({arrays}) WITH ORDINALITY AS {alias} ({', '.join(names)}, place)",
            {name: mark if name in self.alike else f"{alias}.{name}" for name, mark in marks.items()},
            f"{marks['num']}[]" if "num" in names else "",
        )


Form = Values | Arrays


@attrs.frozen
class Bound:
    """Rows and their form."""

    form: Form
    parameters: list[object]


def as_values(rows: Collection[Sequence[object]]) -> Bound:
    """These rows, each value by itself."""
    return Bound(Values(len(rows)), [value for row in rows for value in row])


def as_arrays(
    rows: Collection[Sequence[object]], columns: Mapping[str, str], *, often_alike: Collection[str] = ()
) -> Bound:
    """These rows as arrays; once only what is the same in all of them, for columns in which that is common."""
    turned = dict(zip(columns, zip(*rows, strict=True), strict=True))
    alike = frozenset(name for name in often_alike if turned[name].count(turned[name][0]) == len(rows))
    return Bound(Arrays(alike), [column[0] if name in alike else list(column) for name, column in turned.items()])
