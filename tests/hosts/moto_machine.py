"""Runs exported machines on moto's interpreter of the Amazon States Language, with our handler as their function.

Invariant: no container, no network and no waiting: the function is called in this process, delays and sleeps take no
time, and every wait for an end has a deadline.
"""

import contextlib
import copy
import functools
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import attrs

DEADLINE_S = 60.0
REGION = "eu-west-1"
ROLE = "arn:aws:iam::123456789012:role/any"
NUMBERS = itertools.count(1)

Handler = Callable[[Mapping[str, Any], object], Mapping[str, Any]]


@attrs.frozen
class Ended:
    """How an execution ended."""

    status: str
    output: Any = None
    error: str | None = None
    cause: str | None = None
    history: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]], repr=False)

    @property
    def entered(self) -> list[str]:
        """The names of the states in the order in which they were entered."""
        details = (each.get("stateEnteredEventDetails") for each in self.history)
        return [each["name"] for each in details if each is not None]


@attrs.define
class Machines:
    """The service: state machines are made and run on it."""

    client: Any
    called: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]])
    """Role and step of each call of the function, in order."""
    waited: list[float] = attrs.field(factory=list[float])
    """The seconds of each delay before a retry, and of each sleep."""
    handler: Handler | None = None
    before: Callable[[Mapping[str, Any]], None] = lambda _event: None
    """Called with each event, before the handler."""
    after: Callable[[Mapping[str, Any]], None] = lambda _event: None
    """Called with each event, when the handler has returned or raised."""

    def start(self, definition: str, given: object) -> str:
        """Begin an execution; returns its ARN."""
        name = f"machine-{next(NUMBERS)}"
        made = self.client.create_state_machine(name=name, definition=definition, roleArn=ROLE)
        begun = self.client.start_execution(stateMachineArn=made["stateMachineArn"], input=json.dumps(given))
        return str(begun["executionArn"])

    def end(self, execution: str) -> Ended:
        """Wait for the end of an execution."""
        until = time.monotonic() + DEADLINE_S
        while (found := self.client.describe_execution(executionArn=execution))["status"] == "RUNNING":
            assert time.monotonic() < until, f"it does not end: {self.called}"
            time.sleep(0.005)
        output = plain(found["output"]) if found.get("output") else None
        pages = self.client.get_execution_history(executionArn=execution, maxResults=1000)
        return Ended(found["status"], output, found.get("error"), found.get("cause"), pages["events"])

    def run(self, definition: str, given: object, handler: Handler) -> Ended:
        """Run a machine to its end."""
        self.handler = handler
        return self.end(self.start(definition, given))

    def invoke(self, parameters: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        """Call the handler as Lambda does: JSON in, JSON out, an exception by the name of its class."""
        event = json.loads(parameters["Payload"])
        assert self.handler is not None
        self.before(event)
        self.called.append((event["role"], event["step"]))
        try:
            answer = json.loads(json.dumps(self.handler(copy.deepcopy(event), None)))
        except Exception as error:  # noqa: BLE001 - as the runtime of Lambda does
            failed = {"errorType": type(error).__name__, "errorMessage": str(error)}
            return {"StatusCode": 200, "FunctionError": "Unhandled", "Payload": failed}
        else:
            return {"StatusCode": 200, "Payload": answer}
        finally:
            self.after(event)


def plain(output: str) -> Any:
    """The value of an output. The service writes JSON; moto leaves a text as it is."""
    try:
        return json.loads(output)
    except json.JSONDecodeError:
        return output


@functools.cache
def client() -> Any:
    """The caller's side of the service, made while it is mocked; it keeps nothing of what it asked for."""
    import boto3  # noqa: PLC0415 - slow to import, and only one of the processes that run the tests may need it

    return boto3.client("stepfunctions", region_name=REGION, aws_access_key_id="any", aws_secret_access_key="any")


@contextlib.contextmanager
def machines() -> Iterator[Machines]:
    """The service, while the block runs. Its log of every failure and of every field that is not there is left out."""
    # slow to import, and only one of the processes that run the tests may need them
    from moto import mock_aws  # noqa: PLC0415
    from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl  # noqa: PLC0415
    from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils  # noqa: PLC0415
    from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import (  # noqa: PLC0415
        WaitFunction,
    )
    from moto.stepfunctions.parser.models import StepFunctionsParserBackend  # noqa: PLC0415

    logging.getLogger("moto").setLevel(logging.CRITICAL)
    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        found = Machines(client())
        clock = mock.Mock(sleep=found.waited.append)
        with (
            mock.patch.object(lambda_eval_utils, "_invoke_lambda_function", found.invoke),
            mock.patch.object(retrier_decl, "time", clock),
            mock.patch.object(StepFunctionsParserBackend, "_validate_definition"),  # it parses all a second time
            mock.patch.object(
                WaitFunction, "_wait_interval", lambda _self, env, wait_seconds: found.waited.append(wait_seconds)
            ),
        ):
            yield found
