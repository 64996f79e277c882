"""What errors say: text, advice, code and page; and what of it a user's own subclass may decide."""

import pytest

from durable_core.errors import PAGES, DefinitionError, DurableError, in_words, without_code
from sagas.errors import SagasError


class Sets(SagasError):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message  # type: ignore[assignment]
        self.text = self.page = "its own"  # type: ignore[assignment]


class Overrides(SagasError):
    def message(self) -> str:  # type: ignore[override]
        return "its own"

    text = "its own"  # type: ignore[assignment]


class Speaks(SagasError):
    def __str__(self) -> str:
        return "declined for 5"


class Empty(SagasError):
    def __init__(self) -> None:
        pass


class Coded(SagasError):
    code = "E-42"


def test_an_error_says_what_happened_and_what_to_do() -> None:
    """Its message is text and advice, its code and the address of its page."""
    error = DefinitionError("it is no step", "decorate it")
    assert (error.text, error.advice, error.message) == ("it is no step", "decorate it", "it is no step. Decorate it")
    assert error.page == f"{PAGES}/DC001"
    assert str(error) == f"it is no step. Decorate it [DC001] {PAGES}/DC001"
    assert in_words(error) == "DefinitionError: it is no step. Decorate it"
    assert without_code(str(error)) == error.message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Sets("card refused"), "Sets: card refused"),
        (Overrides("card refused"), "Overrides: card refused"),
        (Speaks("x"), "Speaks: declined for 5"),
        (Empty(), "Empty"),
        (Coded("card refused"), "Coded: card refused"),
        (SagasError("the seat is taken [LH123]"), "DurableError: the seat is taken [LH123]"),
        (ValueError("plain"), "ValueError: plain"),
    ],
)
def test_a_subclass_of_a_user_keeps_what_it_says(error: Exception, words: str) -> None:
    """It may use the names of our attributes, speak for itself, say nothing, and end as our codes do."""
    assert in_words(error) == words


def test_what_a_subclass_sets_is_there() -> None:
    """Its attributes are its own, and its text of ours is untouched."""
    error = Sets("card refused")
    assert (error.message, error.text, error.page) == ("card refused", "its own", "its own")
    assert str(error) == f"card refused [DC000] {PAGES}/DC000"
    assert str(Coded("card refused")) == "card refused [E-42]"
    assert str(Empty()) == ""


def test_a_text_of_an_older_release_is_read_without_its_code() -> None:
    """It stored the code with the text; a code of another kind is a part of the text."""
    assert DurableError("it is gone [DC000]").text == "it is gone"
    assert DurableError("it is gone [DC001]").text == "it is gone [DC001]"
