"""Any row with any journal is the same after its way through an archive's line."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_core import PayloadError
from durable_core.model.archive import line_of, read_line
from durable_core.model.entry import Entry
from durable_core.model.run import RunRecord, RunStatus

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
json = st.sampled_from([b"null", b"1e400", b'"\\u2028\xe2\x80\xa8"', b'{"a":\n1}', b"0.10", b'{"a":1,"a":2}'])
payloads = st.binary(max_size=20) | json | texts.map(str.encode)
by_type = {
    int: numbers,
    str: texts,
    bytes: payloads,
    bool: st.booleans(),
    RunStatus: st.sampled_from(RunStatus),
    int | None: st.none() | numbers,
    str | None: st.none() | texts,
    bytes | None: st.none() | payloads,
}
runs = st.builds(RunRecord, **{field.name: by_type[field.type] for field in attrs.fields(RunRecord)})
entries = st.builds(Entry, **{name: by_type[type_] for name, type_ in Entry.__annotations__.items()})


@given(run=runs, journal=st.lists(entries, max_size=3))
def test_a_line_read_back_is_what_it_was_made_from(run: RunRecord, journal: list[Entry]):
    """Byte for byte, on one line, whether the payloads are JSON or not; twice the same gives the same line."""
    journal = [entry._replace(run=run.num) for entry in journal]
    line = line_of(run, journal)
    assert line.endswith(b"\n")
    assert len(line.splitlines()) == 1
    assert read_line(line) == (run, journal)
    assert line_of(run, journal) == line


@given(run=runs, data=st.data())
def test_a_line_cut_short_is_refused(run: RunRecord, data: st.DataObject):
    """Whatever a crash left of it: `PayloadError`, and nothing else."""
    line = line_of(run, [])
    cut = data.draw(st.integers(0, len(line) - 2))
    with pytest.raises(PayloadError):
        read_line(line[:cut])


@pytest.mark.parametrize(
    "line", [b"", b"1", b"{}", b'{"archive":2}', b'{"archive":1}', b'{"archive":1,"run":{},"journal":[]}']
)
def test_what_is_no_line_of_ours_is_refused(line: bytes):
    """So is one of a newer release."""
    with pytest.raises(PayloadError):
        read_line(line)
