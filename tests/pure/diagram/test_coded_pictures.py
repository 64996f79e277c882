"""Pictures of bodies: what the source shows is drawn, and what it does not show is said to be so."""

import pytest

from sagas.check.outline import MOST
from sagas.diagram.coded import coded_picture
from sagas.diagram.picture import Picture
from tests.pure.diagram.scenes import coded, flow_of, lines

BODIES = {
    "a sequence": (
        """
        await s.run(reserve)
        await s.run(charge)
        return await s.run(ship)
        """,
        """
        start > reserve
        reserve > charge
        charge > ship
        ship > end
        """,
    ),
    "nothing": (
        """
        pass
        """,
        """
        start > end
        """,
    ),
    "an occurrence": (
        """
        await s.run(book)
        await s.run(book)
        """,
        """
        start > book
        book > book#2
        book#2 > end
        """,
    ),
    "if": (
        """
        if x > 1:
            await s.run(book)
        await s.run(charge)
        """,
        """
        start > choice
        choice > book: yes
        book > charge
        choice > charge: no
        charge > end
        """,
    ),
    "elif": (
        """
        if x == 1:
            await s.run(book)
        elif x == 2:
            await s.run(reserve)
        else:
            raise Declined('no')
        """,
        """
        start > choice
        choice > book: x == 1
        choice > reserve: x == 2
        choice > raise: else
        book > end
        reserve > end
        """,
    ),
    "match": (
        """
        match x:
            case 1:
                await s.run(book)
            case 'two':
                return
        await s.run(charge)
        """,
        """
        start > choice
        choice > book: 1
        book > charge
        choice > charge: else
        choice > end: 'two'
        charge > end
        """,
    ),
    "an expression": (
        """
        y = await s.run(look) if x else await s.run(book)
        return y and await s.run(note)
        """,
        """
        start > choice1
        choice1 > look: yes
        choice1 > book: no
        look > choice2
        book > choice2
        choice2 > note
        note > end
        choice2 > end
        """,
    ),
    "except": (
        """
        try:
            await s.run(book)
        except Declined:
            await s.run(note)
        await s.run(charge)
        """,
        """
        start > book
        book !> note: except Declined
        book > charge
        note > charge
        charge > end
        """,
    ),
    "an exception that is swallowed": (
        """
        try:
            await s.run(book)
        except Declined:
            pass
        await s.run(charge)
        """,
        """
        start > book
        book > charge: except Declined
        charge > end
        """,
    ),
    "an exception that is raised again": (
        """
        try:
            await s.run(book)
        except Declined:
            raise
        finally:
            await s.run(look)
        """,
        """
        start > book
        book > look
        look > end
        """,
    ),
    "for": (
        """
        for item in items:
            await s.run(book, item)
        await s.run(charge)
        """,
        """
        start > choice
        choice > book: next
        book ^> choice: again
        choice > charge: done
        charge > end
        """,
    ),
    "while": (
        """
        while True:
            if await s.run(look):
                break
            await s.sleep(60)
        await s.run(charge)
        """,
        """
        start > look
        look > choice
        choice > sleep: no
        sleep ^> look: again
        choice > charge: yes
        charge > end
        """,
    ),
    "while, with a step in the test": (
        """
        while not await s.run(look):
            await s.run(note)
        await s.run(charge)
        """,
        """
        start > look
        look > choice
        choice > note: yes
        note ^> look: again
        choice > charge: no
        charge > end
        """,
    ),
    "else of a loop": (
        """
        for item in items:
            if await s.run(look, item):
                break
        else:
            await s.run(note)
        await s.run(charge)
        """,
        """
        start > choice1
        choice1 > look: next
        look > choice2
        choice2 ^> choice1: again
        choice2 > charge: yes
        choice1 > note: done
        note > charge
        charge > end
        """,
    ),
    "continue": (
        """
        for item in items:
            if item:
                continue
            await s.run(book)
        """,
        """
        start > choice1
        choice1 > choice2: next
        choice2 > book: no
        book ^> choice1: again
        choice2 ^> choice1: again
        choice1 > end: done
        """,
    ),
    "a comprehension": (
        """
        return [await s.run(book, item) for item in items]
        """,
        """
        start > choice
        choice > book: next
        book ^> choice: again
        choice > end: done
        """,
    ),
    "a parallel block": (
        """
        async with s.parallel() as p:
            p.run(book)
            p.run(reserve)
        await s.run(charge)
        """,
        """
        start > fork
        fork > book
        fork > reserve
        book > join
        reserve > join
        join > charge
        charge > end
        """,
    ),
    "a branch": (
        """
        async def two(s):
            await s.run(book)
            await s.run(look)
        async with s.parallel() as p:
            p.run(two)
            await s.run(reserve)
        """,
        """
        start > fork
        fork > two/book
        two/book > two/look
        fork > reserve
        two/look > join
        reserve > join
        join > end
        """,
    ),
    "a branch with a choice": (
        """
        async def two(s):
            if x:
                await s.run(book)
        async with s.parallel() as p:
            p.run(two)
            p.run(reserve)
        """,
        """
        start > fork
        fork > choice
        choice > two/book: yes
        two/book > merge
        choice > merge: no
        fork > reserve
        merge > join
        reserve > join
        join > end
        """,
    ),
    "a savepoint": (
        """
        async with s.savepoint('courier'):
            await s.run(book)
        await s.run(charge)
        """,
        """
        start > courier/book
        courier/book > charge
        charge > end
        """,
    ),
    "children, waits": (
        """
        await s.run(booking)
        token = await s.callback('approval', str)
        await token.result()
        """,
        """
        start > booking
        booking > approval
        approval > end
        """,
    ),
    "a function of the body": (
        """
        async def twice(n):
            if n:
                return await s.run(book)
            await s.run(note)
        await twice(1)
        await s.run(charge)
        """,
        """
        start > choice
        choice > book: yes
        choice > note: no
        note > charge
        book > charge
        charge > end
        """,
    ),
    "a step in an argument": (
        """
        await s.run(charge, await s.run(reserve))
        """,
        """
        start > reserve
        reserve > charge
        charge > end
        """,
    ),
    "what is not to be seen": (
        """
        await elsewhere(s, 1)
        await s.run(STEPS['reserve'])
        """,
        """
        start > unreadable1
        unreadable1 > unreadable2
        unreadable2 > end
        """,
    ),
    "a choice of nothing": (
        """
        if x:
            pass
        match x:
            case 1:
                pass
        await s.run(book)
        """,
        """
        start > book
        book > end
        """,
    ),
    "a match of everything": (
        """
        match x:
            case [] if items:
                pass
            case []:
                pass
            case 1:
                await s.run(book)
            case _:
                await s.run(note)
        await s.run(charge)
        """,
        """
        start > choice
        choice > book: 1
        choice > note: _
        choice > charge: []
        book > charge
        note > charge
        charge > end
        """,
    ),
    "a loop of nothing": (
        """
        for item in items:
            print(item)
        else:
            await s.run(book)
        """,
        """
        start > book
        book > end
        """,
    ),
    "a loop in a loop": (
        """
        for item in items:
            for each in item:
                await s.run(book)
        """,
        """
        start > choice1
        choice1 > choice2: next
        choice2 > book: next
        book ^> choice2: again
        choice2 ^> choice1: again
        choice1 > end: done
        """,
    ),
    "a loop of a try": (
        """
        for item in items:
            try:
                await s.run(book)
            except Declined:
                pass
        """,
        """
        start > choice
        choice > book: next
        book ^> choice: again
        choice > end: done
        """,
    ),
    "a loop that may return": (
        """
        for item in items:
            if item:
                return
        await s.run(book)
        """,
        """
        start > choice1
        choice1 > choice2: next
        choice2 ^> choice1: again
        choice1 > book: done
        book > end
        choice2 > end: yes
        """,
    ),
    "a loop that may return from a try": (
        """
        for item in items:
            try:
                return
            except Declined:
                pass
        await s.run(book)
        """,
        """
        start > choice
        choice > book: done
        book > end
        choice > end: next
        """,
    ),
    "a loop that may return from an except": (
        """
        for item in items:
            try:
                if item:
                    break
            except Declined:
                return
        await s.run(book)
        """,
        """
        start > choice1
        choice1 > choice2: next
        choice2 ^> choice1: again
        choice1 > book: done
        choice2 > book: yes
        book > end
        choice2 !> end: except Declined
        """,
    ),
    "a loop that may raise in another loop": (
        """
        while x:
            for item in items:
                print(item)
                raise Declined
        await s.run(book)
        """,
        """
        start > choice1
        choice1 > choice2: next
        choice2 > raise: next
        choice2 ^> choice1: again
        choice1 > book: done
        book > end
        """,
    ),
    "a loop that may return from a block": (
        """
        for item in items:
            async with s.parallel():
                if item:
                    return
        await s.run(book)
        """,
        """
        start > choice1
        choice1 > choice2: next
        choice2 ^> choice1: again
        choice1 > book: done
        book > end
        choice2 > end: yes
        """,
    ),
    "a loop that may return from a savepoint": (
        """
        for item in items:
            async with s.savepoint('a'):
                return
        await s.run(book)
        """,
        """
        start > choice
        choice > book: done
        book > end
        choice > end: next
        """,
    ),
    "a loop whose function may raise": (
        """
        def check():
            raise Declined
        for item in items:
            check()
        await s.run(book)
        """,
        """
        start > choice
        choice > raise: next
        choice > book: done
        book > end
        """,
    ),
    "a loop whose function may return": (
        """
        def check():
            return 1
        for item in items:
            check()
        await s.run(book)
        """,
        """
        start > book
        book > end
        """,
    ),
    "a loop that returns at once": (
        """
        while True:
            return
        await s.run(book)
        """,
        """
        start > end
        """,
    ),
    "blocks of others": (
        """
        async with elsewhere.parallel() as p, x:
            await s.run(book)
        with x as y:
            await s.run(note)
        with s.parallel():
            await s.run(reserve)
        """,
        """
        start > book
        book > note
        note > reserve
        reserve > end
        """,
    ),
    "a block of one": (
        """
        async with s.parallel():
            await s.run(book)
        """,
        """
        start > book
        book > end
        """,
    ),
    "a lambda": (
        """
        later = lambda: s.run(book)
        await s.run(note)
        """,
        """
        start > note
        note > end
        """,
    ),
    "what a call gives is called": (
        """
        await x()(1)
        await elsewhere(s)(2)
        """,
        """
        start > unreadable
        unreadable > end
        """,
    ),
    "an operation that runs nothing": (
        """
        at = s.now()
        await s.run(book)
        """,
        """
        start > book
        book > end
        """,
    ),
    "a function that is given the saga": (
        """
        async def go(given, item):
            await given.run(book, item)
        await go(s, 1)
        """,
        """
        start > book
        book > end
        """,
    ),
    "a sleep without a length": (
        """
        await s.sleep()
        await s.run(book)
        """,
        """
        start > sleep
        sleep > book
        book > end
        """,
    ),
    "an answer as a condition": (
        """
        if await s.callback('ok', bool):
            await s.run(book)
        """,
        """
        start > ok
        ok > choice
        choice > book: yes
        book > end
        choice > end: no
        """,
    ),
    "elif with a step": (
        """
        if x:
            await s.run(book)
        elif await s.run(look):
            await s.run(note)
        """,
        """
        start > choice1
        choice1 > book: yes
        choice1 > look: no
        look > choice2
        choice2 > note: yes
        book > end
        note > end
        choice2 > end: no
        """,
    ),
    "a try of a sleep": (
        """
        try:
            await s.sleep(1)
        except Declined:
            await s.run(note)
        """,
        """
        start > sleep
        sleep !> note: except Declined
        sleep > end
        note > end
        """,
    ),
    "a try of a choice": (
        """
        try:
            if x:
                return
        except Declined:
            await s.run(note)
        """,
        """
        start > choice
        choice !> note: except Declined
        choice > end: no or yes
        note > end
        """,
    ),
    "a block whose branches all raise": (
        """
        async def one(t):
            await t.run(book)
            raise Declined
        async def two(t):
            await t.run(note)
            raise Declined
        async with s.parallel() as p:
            p.run(one)
            p.run(two)
        """,
        """
        start > fork
        fork > one/book
        one/book > raise1
        fork > two/note
        two/note > raise2
        """,
    ),
}


@pytest.mark.parametrize(("body", "drawn"), BODIES.values(), ids=BODIES)
def test_the_flow_of_a_body(body: str, drawn: str):
    """Each construct of a body gives its edges: which node comes after which, and on what condition."""
    assert sorted(flow_of(body).splitlines()) == sorted(lines(drawn).splitlines())


def picture(body: str) -> Picture:
    return coded_picture(coded(body))


def labels(drawn: Picture, kind: str) -> list[str]:
    return [mark.label for mark in drawn.nodes if mark.kind == kind]


def test_the_undo_lane_has_each_compensation_under_its_step():
    """A step with a compensation has it by the name of its function; a child is undone whole; others have none."""
    runs = ("reserve", "booking", "note", "looking", "charge", "ship")
    drawn = picture("\n".join(f"await s.run({each})" for each in runs))
    assert {undo.serves: undo.label for undo in drawn.undos} == {"reserve": "put_back", "booking": "undo booking"}


def test_the_pivot_is_marked_also_in_a_child():
    """The point of no return is said at the pivot, and at a child that has it, which is then not undone."""
    drawn = picture("await s.run(charge)")
    assert [(mark.kind, mark.note) for mark in drawn.nodes][1] == ("pivot", "point of no return")
    within = picture("await s.run(paying)")
    assert [(mark.kind, mark.note) for mark in within.nodes][1] == ("child", "point of no return")
    assert within.undos == ()


def test_a_map_is_one_node_for_each_item():
    """`s.map`, and a loop that only begins branches, is marked as repeated side by side."""
    drawn = picture(
        "await s.map(book, items)\nasync with s.parallel() as p:\n    for item in items:\n        p.run(reserve)"
    )
    assert {mark.key: mark.repeats for mark in drawn.nodes if mark.kind == "step"} == {"book": True, "reserve": True}


def test_a_savepoint_frames_its_nodes():
    """The nodes of a savepoint are framed, with its name."""
    (frame,) = picture("async with s.savepoint('courier'):\n    await s.run(book)\nawait s.run(note)").frames
    assert (frame.label, frame.members) == ("savepoint courier", {"courier/book"})


def test_conditions_are_shown_as_a_person_would_say_them():
    """Without `await`, and a step's call as the step."""
    drawn = picture("if not await s.run(look, x):\n    await s.run(book)")
    assert labels(drawn, "choice") == ["not look"]


def test_sleeps_say_how_long():
    """As it is written in the body."""
    drawn = picture("await s.sleep(60)\nawait s.sleep(timedelta(days=1))\nawait s.sleep_until(x)")
    assert [mark.note for mark in drawn.nodes if mark.kind == "sleep"] == ["60 s", "days 1", "until x"]


UNREADABLE = {
    "await elsewhere(s)": "elsewhere(…)",
    "await s.run(STEPS['reserve'])": "STEPS['reserve']",
    "await s.run(print)": "print is no step",
    "await s.callback(str(x), str)": "a callback",
    "async def more(n):\n    await more(n)\nawait more(1)": "more calls itself",
}


@pytest.mark.parametrize(("body", "label"), UNREADABLE.items())
def test_what_the_source_does_not_show_is_said(body: str, label: str):
    """One node stands for what cannot be read, with what is written there."""
    assert labels(picture(body), "unreadable") == [label]


def test_a_body_without_source_is_one_node():
    """A body whose source is gone is drawn as not readable, between start and end."""
    found = coded("await s.run(reserve)")
    found.body.__code__ = found.body.__code__.replace(co_filename="<gone>")
    assert labels(coded_picture(found), "unreadable") == ["the body has no source"]


def test_functions_that_multiply_are_not_followed_for_ever():
    """Functions that call each other twice, one after the other, end in one node that says why."""
    body = [f"async def f{n}():\n    await f{n - 1}()\n    await f{n - 1}()" for n in range(1, 20)]
    drawn = picture("\n".join(["async def f0():\n    await s.run(look)", *body, "await f19()"]))
    assert labels(drawn, "unreadable") == ["the body is too large"]
    assert len(drawn.nodes) < MOST


def test_an_endless_chain_of_ifs_is_drawn():
    """A thousand conditions are a thousand arms."""
    arms = "\n".join(f"elif x == {n}:\n    await s.run(look)" for n in range(1, 1000))
    drawn = picture(f"if x == 0:\n    await s.run(look)\n{arms}")
    assert len(labels(drawn, "lookup")) == 1000


def test_every_end_is_joined():
    """No node is left without a way to it, and only ends and `raise` lead nowhere."""
    drawn = picture(
        lines(
            """
            for item in items:
                try:
                    await s.run(book)
                except Declined:
                    if item:
                        break
                    continue
                if item == 2:
                    return await s.run(note)
                raise Declined
            else:
                await s.run(look)
            await s.run(charge)
            """
        )
    )
    targets, sources = {edge.target for edge in drawn.edges}, {edge.source for edge in drawn.edges}
    assert {mark.kind for mark in drawn.nodes if mark.key not in targets} == {"start"}
    assert {mark.kind for mark in drawn.nodes if mark.key not in sources} == {"end", "raise"}
