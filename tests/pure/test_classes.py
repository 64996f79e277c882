"""Which class a stored name means: a script's is found by a program that imports it, and the other way round."""

import sys
from types import ModuleType

import pytest

from durable_core.model.classes import find_class


class Declined(Exception):
    """The class that is looked for."""


def module(name: str, file: str, **names: object) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(__file__=file, **names)
    return made


@pytest.mark.parametrize(
    ("imported", "file"),
    [
        ("orders", "/srv/shop/orders.py"),
        ("shop.orders", "/home/ann/shop/orders.py"),
    ],
)
def test_a_scripts_class_is_found_where_the_script_is_imported(
    monkeypatch: pytest.MonkeyPatch, imported: str, file: str
):
    """By its file; or, on another machine, by the end of its path."""
    monkeypatch.setitem(sys.modules, "__main__", module("__main__", "/usr/bin/worker"))
    monkeypatch.setitem(sys.modules, imported, module(imported, file, Declined=Declined))
    monkeypatch.setitem(sys.modules, "bills", module("bills", "/srv/shop/bills.py", Declined=KeyError))
    monkeypatch.setitem(sys.modules, "lazy", None)
    assert find_class("__main__:Declined", "/srv/shop/orders.py", ()) is Declined
    assert find_class("__main__:Declined", "/srv/shop/other.py", ()) is None


def test_a_class_is_found_where_the_same_script_runs(monkeypatch: pytest.MonkeyPatch):
    """The script is its own main module, also where it is run by its name; an older release stored no file."""
    main = module("__main__", "/srv/shop/orders.py", Declined=Declined)
    monkeypatch.setitem(sys.modules, "__main__", main)
    for address, home in (
        ("__main__:Declined", "/srv/shop/orders.py"),
        ("__main__:Declined", ""),
        ("shop.orders:Declined", ""),
    ):
        assert find_class(address, home, ()) is Declined
    assert find_class("shop.bills:Declined", "", ()) is None
    assert find_class("shop.orders:Absent", "", ()) is None


def test_a_preferred_class_is_taken_at_its_address_or_by_its_name():
    """What a declaration names comes first; a builtin's name alone is no proof."""
    assert find_class(f"{__name__}:Declined", "", (Declined,)) is Declined
    assert find_class("moved.elsewhere:Declined", "", (Declined,)) is Declined
    assert find_class("moved.elsewhere:KeyError", "", (KeyError,)) is None
