"""Makes the worker that serves sagas on a task queue."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio import client as temporal_client
from temporalio.common import (
    RawValue,
    VersioningBehavior,
)
from temporalio.worker import Worker

from durable_core import DefinitionError
from durable_core.layer import (
    Duration,
    duration,
)
from sagas.hosts.attempts import Attempts
from sagas.hosts.shared import (
    Registry,
)
from sagas.hosts.temporal.attempts import make
from sagas.hosts.temporal.execution import Execution
from sagas.hosts.temporal.limits import GRACE, LEASE
from sagas.hosts.tokens import secret_of
from sagas.model.definition import SagaDef


def worker(
    client: temporal_client.Client,
    *,
    task_queue: str,
    sagas: Sequence[SagaDef[..., Any]],
    resources: Sequence[object] = (),
    lease: Duration = LEASE,
    secret: str | bytes | None = None,
    **options: Any,
) -> Worker:
    """A Temporal worker that serves sagas: run it with ``await worker.run()`` or ``async with worker``.

    Args:
        client: connected to the namespace.
        task_queue: its queue, for nothing but sagas.
        sagas: the sagas; of each one every version that executions still run.
        resources: objects for the ``resource()`` parameters of steps, by type.
        lease: how long an attempt may go without a sign of life before its worker counts as dead.
        secret: callback tokens are derived from it and from the run id; at least 32 long. Default: ``SAGAS_SECRET``
            from the environment, else the run id alone. All workers must use the same one.
        **options: of ``temporalio.worker.Worker``, such as ``max_cached_workflows`` or ``deployment_config``, with
            which executions stay on the version that they began on.

    Returns:
        The worker. ``Replayer(workflows=worker.config()["workflows"])`` replays histories with its sagas.

    Raises:
        DefinitionError: a saga has faults, a resource is missing, or an option is not for sagas.
    """
    registry = Registry(sagas, resources, serving=True)
    return serve(client, registry, task_queue=task_queue, lease=lease, secret=secret, **options)


def serve(
    client: temporal_client.Client,
    registry: Registry,
    *,
    task_queue: str,
    lease: Duration = LEASE,
    secret: str | bytes | None = None,
    **options: Any,
) -> Worker:
    """A worker for all that a registry holds."""
    for name in ("workflows", "activities"):
        if options.get(name):
            raise DefinitionError(
                f"temporal.worker: {name}= was given, and on this queue every workflow is a saga, every activity an "
                "attempt",
                "Run them by a worker of their own, on another task queue",
            )
        options.pop(name, None)
    options.setdefault("graceful_shutdown_timeout", GRACE)
    making = activity.defn(dynamic=True)(_dynamic(Attempts(registry)))
    return Worker(
        client,
        task_queue=task_queue,
        workflows=[_workflow_of(registry, duration(lease, "lease"), secret_of(secret), _behavior(options))],
        activities=[making],
        **options,
    )


def _dynamic(attempts: Attempts) -> Any:
    """A plain function, as the SDK wants it."""

    async def attempt_step(args: Sequence[RawValue]) -> RawValue:
        return await make(attempts, args)

    return attempt_step


def _behavior(options: Mapping[str, Any]) -> VersioningBehavior:
    config = options.get("deployment_config")
    pinned = config is not None and config.use_worker_versioning
    return VersioningBehavior.PINNED if pinned else VersioningBehavior.UNSPECIFIED


def _workflow_of(registry: Registry, lease: timedelta, secret: bytes, behavior: VersioningBehavior) -> type[Execution]:
    """The class of one worker. It alone goes to a replayer, so it brings all that it needs."""

    async def run(self: Execution, args: Sequence[RawValue]) -> RawValue:
        return await self.main(args)

    run.__qualname__ = "SagaExecution.run"  # the SDK refuses what looks like a local class
    del run.__annotations__["self"]  # and counts an annotated self as an argument
    members = {"run": workflow.run(run), "registry": registry, "lease": lease, "secret": secret}
    made = type("SagaExecution", (Execution,), {**members, "__module__": __name__})
    return workflow.defn(dynamic=True, sandboxed=False, versioning_behavior=behavior)(made)
