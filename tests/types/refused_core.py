"""What a user's type checker must refuse of the durable core alone. Checked, never run.

Above a wrong line stand the rules that report it. Both checkers must report exactly these lines by these rules.
"""

from typing import assert_type

from durable_core import Context, Engine, durable, step


async def fetch(path: str) -> int:
    """A step."""
    return len(path)


@step
def count(path: str) -> int:
    """A decorated step."""
    return len(path)


# error: mypy[call-overload] pyright[reportArgumentType]
@step(timeout="soon")
def in_words(path: str) -> int:
    """A timeout is a timedelta or seconds."""
    return len(path)


@durable("inner", version=1)
async def inner(ctx: Context, path: str) -> int:
    """A child."""
    return await ctx.step(fetch, path)


# error: mypy[arg-type] pyright[reportArgumentType]
@durable("no-context", version=1)
async def no_context(path: str) -> int:
    """A body's first parameter is the context."""
    return len(path)


# error: mypy[arg-type] pyright[reportArgumentType]
@durable("plain", version=1)
def plain(ctx: Context, path: str) -> int:
    """A body is an async def."""
    return len(path)


@durable("body", version=1)
async def body(ctx: Context) -> None:
    """Wrong calls."""
    # error: mypy[unused-coroutine] pyright[reportUnusedCoroutine]
    ctx.step(fetch, "a")
    # error: mypy[unused-coroutine] pyright[reportUnusedCoroutine]
    ctx.sleep(3)
    # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
    await ctx.step(fetch, 3)
    # error: mypy[call-overload] pyright[reportCallIssue]
    await ctx.step(count)
    # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
    await ctx.step(fetch("a"))
    # error: mypy[arg-type] pyright[reportArgumentType]
    await ctx.child(inner, 3)
    # error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
    await ctx.child(fetch, "a")
    # error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
    await ctx.map(count, [1, 2])
    # error: mypy[arg-type] pyright[reportArgumentType, reportCallIssue]
    await ctx.map(inner, [1, 2])
    # error: mypy[arg-type] pyright[reportArgumentType]
    await ctx.sleep("soon")
    # error: mypy[arg-type] pyright[reportArgumentType]
    await ctx.callback("approval", 3)
    # error: mypy[assert-type] pyright[reportAssertTypeFailure]
    assert_type(await ctx.step(fetch, "a"), str)
    async with ctx.parallel() as p:
        # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
        p.run(inner, 3)
        # error: mypy[misc] pyright[reportGeneralTypeIssues]
        await p.run(count, "a")


async def main() -> None:
    """Wrong calls of an engine."""
    async with Engine("memory://", [inner, body]) as engine:
        # error: mypy[arg-type] pyright[reportCallIssue]
        await engine.start(inner)
        # error: mypy[misc] pyright[reportCallIssue]
        await engine.start(inner, 3, id="a")
        # error: mypy[call-overload] pyright[reportArgumentType, reportCallIssue]
        await engine.start(fetch, "a")
        # error: mypy[call-arg] pyright[reportCallIssue]
        await engine.start(inner, "a", deadline=3)
    # error: mypy[list-item] pyright[reportArgumentType]
    Engine("memory://", [fetch])
    # error: mypy[arg-type] pyright[reportArgumentType]
    Engine("memory://", concurrency="many")
