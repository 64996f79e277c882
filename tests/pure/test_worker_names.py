"""A worker's name says where it is, and names without that are read too."""

import pytest

from durable_core.model.worker import LONGEST_HOST, place_of, worker_name


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("orders-1", "orders-1"),
        ("a.b_c.example", "a.b_c.example"),
        ("Bob's laptop", "Bob-s-laptop"),
        ("x@y:z", "x-y-z"),
        ("x" * 100, "x" * LONGEST_HOST),
        ("", "unknown"),
        ("ü", "-"),
    ],
)
def test_a_name_says_machine_and_process(host: str, told: str):
    """What was put in is read again; what could be mistaken is replaced, what is long is cut."""
    assert place_of(worker_name("397fc32bfe62d5ac", host=host, pid=4711)) == (told, 4711)


@pytest.mark.parametrize(
    "name", ["", "w-1", "w-397fc32bfe62d5ac", "ann@host:1", "w-1@host:", "w-1@:7", "w-1@h:x", "w@h:1"]
)
def test_other_names_say_nothing(name: str):
    """A name that does not say where its worker is gives nothing, rather than a guess."""
    assert place_of(name) is None
