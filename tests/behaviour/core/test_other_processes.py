"""What one process stores another one reads alike: bytes, fingerprints, and exceptions of a main script."""

import os
import sys
import textwrap
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).parents[3]


def test_ordered_bytes_do_not_depend_on_the_process():
    """Hash randomisation does not change what ``encode_ordered`` writes."""
    program = (
        "import tests.pure.test_codec as t\n"
        "for v in t.awkward_values(): print(t.CODEC.encode_ordered(v, what='v'))\n"
        "print(len(t.awkward_values()))"
    )
    written = {
        forked.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(seed)},
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in range(3)
    }
    assert len(written) == 1
    *values, count = written.pop().splitlines()
    assert len(values) == int(count)


SHOP = """
from sagas import Saga, lookup, saga

@lookup
def price(item): ...

@saga("shop", version=1)
async def shop(s: Saga, item: str) -> None:
    rest = {"a": 1, **{}}
    for turn in {3, 1, 2}:
        await s.run(price, f"{item} {turn!r:>3}")
"""


def test_a_fingerprint_is_the_same_in_every_process(tmp_path: Path):
    """Neither the hash seed nor the order of sets is in it, whether the source is there or not."""
    path = tmp_path / "shop_here.py"
    path.write_text(SHOP, encoding="utf-8")
    show = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        import shop_here, inspect
        from sagas.check.fingerprint import fingerprint
        from sagas.check.scan import scan
        first = fingerprint(shop_here.shop, scan(shop_here.shop))
        def gone(body): raise OSError
        inspect.getsource = gone
        print(first, fingerprint(shop_here.shop, scan(shop_here.shop)))
    """)
    told = {
        forked.run(
            [sys.executable, "-c", show, str(tmp_path)],
            env={"PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1
    first, second = told.pop().split()
    assert first != second


def test_main() -> None:
    """A class of the main script is found under ``__main__``."""
    program = (
        "class Gone(Exception): ...\n"
        "from durable_core.model.failure import capture, rebuild\n"
        "assert type(rebuild(capture(Gone('x')))) is Gone\n"
    )
    done = forked.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


SCRIPT = """\
import sys
from durable_core.model.failure import capture, rebuild

class Gone(Exception):
    class Within(Exception): ...

def told():
    found = [type(rebuild(bytes.fromhex(each))) for each in sys.argv[1:]]
    print(*(kind in (Gone, Gone.Within) for kind in found), capture(Gone('x')).hex(), capture(Gone.Within('y')).hex())
"""


@pytest.mark.parametrize(
    ("script", "module"), [("script.py", "script"), ("shop/orders.py", "shop.orders"), ("shop/orders.py", "orders")]
)
def test_main_is_the_module_of_the_same_file(tmp_path: Path, script: str, module: str) -> None:
    """What a script raised is matched by a program that imports it, and the reverse; another script's is not."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / script).write_text(f"{SCRIPT}\nif __name__ == '__main__':\n    told()\n", encoding="utf-8")
    (tmp_path / "other.py").write_text(f"{SCRIPT}\ntold()\n", encoding="utf-8")
    home = tmp_path / "shop" if module == "orders" else tmp_path
    environment = {**os.environ, "PYTHONPATH": f"{home}{os.pathsep}{ROOT}"}

    def run(*command: str) -> list[str]:
        done = forked.run(
            [sys.executable, *command], check=False, capture_output=True, text=True, env=environment, cwd=home
        )
        assert done.stderr == ""
        return done.stdout.split()

    as_script = run(str(tmp_path / script))[-2:]
    as_module = run("-c", f"import {module}; {module}.told()")[-2:]
    assert run(str(tmp_path / script), *as_module)[:2] == ["True", "True"]
    assert run("-c", f"import {module}; {module}.told()", *as_script)[:2] == ["True", "True"]
    assert run(str(tmp_path / script), *as_script)[:2] == ["True", "True"]
    assert run(str(tmp_path / "other.py"), *as_script)[:2] == ["False", "False"]


def test_main_by_module_name(tmp_path: Path) -> None:
    """With ``python -m script`` the class stored as ``script:Gone`` by another process is the main module's."""
    (tmp_path / "script.py").write_text(
        "class Gone(Exception): ...\n"
        "if __name__ == '__main__':\n"
        "    from durable_core.model.failure import rebuild\n"
        '    assert type(rebuild(b\'{"type":"script:Gone"}\')) is Gone\n',
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = forked.run([sys.executable, "-m", "script"], check=False, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
