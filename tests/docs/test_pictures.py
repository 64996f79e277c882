"""The pictures of docs/how-to/pictures.md are those that the code draws now, and the page shows each of them."""

from tests.docs.readme import ROOT
from tools import readme_pictures
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


def test_the_pictures_of_the_readme_are_current():
    """They are what the tool draws from the README's own saga, and from spans that tell of the kill and the undo."""
    folder = readme_pictures.FOLDER
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.svg")} == readme_pictures.pictures()
    names = {row.name for row in readme_pictures.recorded()}
    assert {"undo charge_card #1 cut", "undo charge_card #2", "undo reserve_stock"} <= names
