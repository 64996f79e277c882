"""The frame of a demo's process: its directory, its exit code, and what it leaves behind."""

import asyncio
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from shutil import rmtree

import typer

FAILED = 1
TERMINATED = 143


def run_demo(
    play: Callable[[Path], Awaitable[int]], *, keep: Path | None, prefix: str, leave: Mapping[str, str] | None = None
) -> int:
    """Play in the directory ``keep``, or in a new one that is removed if all went well; returns the exit code.

    Args:
        play: the demo, which is given the directory and returns its exit code.
        keep: must be new or empty.
        prefix: of a new directory's name.
        leave: files and directories that are not removed, by name, and what to say of each: ``{}`` is its path.
    """
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise typer.BadParameter(f"{keep} is not empty; name a new directory, so that the audit sees this demo alone")
    directory = (keep or Path(tempfile.mkdtemp(prefix=prefix))).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    code, leave = FAILED, leave or {}
    try:
        code = asyncio.run(_stoppable(play, directory))
    except asyncio.CancelledError:
        code = TERMINATED
    finally:
        if keep is None and code == 0:
            _tidy(directory, leave)
        else:
            typer.echo(f"databases and logs: {directory}")
        for name, text in leave.items():
            if (directory / name).exists():
                typer.echo(text.format(directory / name))
    return code


async def _stoppable(play: Callable[[Path], Awaitable[int]], directory: Path) -> int:
    task = asyncio.current_task()
    if task is not None:  # SIGTERM does as Ctrl-C does: end the children, then go
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await play(directory)


def _tidy(directory: Path, leave: Mapping[str, str]) -> None:
    for left in directory.iterdir():
        if left.name in leave:
            continue
        if left.is_dir():
            rmtree(left)
        else:
            left.unlink()
    if not leave:
        directory.rmdir()
