"""The pictures of docs/how-to/pictures.md are those that the code draws now, and the page shows each of them."""

from tests.docs.readme import ROOT
from tools.pictures import FOLDER, pictures


def test_the_pictures_of_the_page_are_current():
    """`python -m tools.pictures` would change nothing: no file is missing, old, or one too many."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == pictures()


def test_the_page_shows_every_picture():
    """Each file is shown once, with a text for those who do not see it."""
    page = (ROOT / "docs/how-to/pictures.md").read_text(encoding="utf-8")
    for path in FOLDER.iterdir():
        assert page.count(f"](pictures/{path.name})") == 1
        assert f"![](pictures/{path.name})" not in page
