"""The two forms of the saga, by name."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

from examples.booking import coded, graph
from examples.booking.domain import Itinerary, Trip
from sagas import SagaDef

TripSaga: TypeAlias = SagaDef[[Trip], Itinerary]


class Form(StrEnum):
    """How the saga is written."""

    GRAPH = "graph"
    CODE = "code"


SAGAS: Mapping[Form, TripSaga] = {Form.GRAPH: graph.book_trip, Form.CODE: coded.book_trip}
