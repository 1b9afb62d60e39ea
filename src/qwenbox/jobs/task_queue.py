"""This is where workers share tasks out: claimed with leases, ended once.

As with batches nothing exact depends on leases or clocks: a task that two workers ran is booked by one id, and its first end counts.
"""

import uuid
from collections.abc import Mapping, Sequence

import anyio
import msgspec
from sqlalchemy import Connection, and_, delete, func, or_, select, update

from qwenbox.clock import Clock
from qwenbox.db import Database
from qwenbox.gateway.journal.base import Outcome
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.jobs.tables import TASKS
from qwenbox.jobs.tasks import OPEN, SHOWN, task_of
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.job import Task, TaskFault, TaskPicture, TaskState

_NAMESPACE = uuid.UUID("0d2b3f0e-5f4e-5d7a-8c39-71656e626f78")
_LATE = "The task did not begin within {hours:g} hours ([tasks] kept_s)."
# Accounts that are looked at when one task is chosen.
_ACCOUNTS = 100
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(ImageRequest)


class ClaimedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is ours. tries: how often it was begun in vain before."""

    task: Task
    request: ImageRequest
    tries: int


def call_id(task_id: str, attempt: int) -> str:
    """The request id under which an attempt at a task is in the books; always the same, whoever makes it."""
    return str(uuid.uuid5(_NAMESPACE, f"{task_id}/{attempt}"))


class TaskQueue:
    """owner: a name for this process's worker, never used again."""

    def __init__(self, database: Database, clock: Clock, owner: str, lease_s: float) -> None:
        self._database = database
        self._clock = clock
        self._owner = owner
        self._lease_s = lease_s

    async def claim(self, busy: Mapping[str, int]) -> ClaimedTask | None:
        """The oldest task of the account that has least of this worker; None when there is none. busy: tasks that run, by account."""
        # To its end: what was claimed when its worker was told to end would be taken after that worker gave back all it knew of.
        claimed: ClaimedTask | None = None
        with anyio.CancelScope(shield=True):
            claimed = await self._database.change(lambda connection: self._claim(connection, busy))
        return claimed

    def _claim(self, connection: Connection, busy: Mapping[str, int]) -> ClaimedTask | None:
        now = self._clock.now()
        waits = and_(TASKS.c.state == TaskState.PENDING.value, TASKS.c.not_before <= now)
        is_left = and_(TASKS.c.state == TaskState.RUNNING.value, TASKS.c.lease_until < now)
        free = or_(waits, is_left)
        oldest = select(TASKS.c.account_id, func.min(TASKS.c.submitted_at).label("first")).where(free).group_by(TASKS.c.account_id)
        accounts = connection.execute(oldest.order_by("first").limit(_ACCOUNTS)).all()
        for account in sorted(accounts, key=lambda row: busy.get(row.account_id, 0)):
            query = select(*SHOWN, TASKS.c.request, TASKS.c.tries).where(TASKS.c.account_id == account.account_id, free)
            query = query.order_by(TASKS.c.submitted_at, TASKS.c.id).limit(1).with_for_update(skip_locked=True)
            row = connection.execute(query).mappings().first()
            if row is not None:
                mine = {
                    "state": TaskState.RUNNING.value,
                    "scheduled_at": row["scheduled_at"] or now,
                    "owner": self._owner,
                    "lease_until": now + self._lease_s,
                }
                connection.execute(update(TASKS).where(TASKS.c.id == row["id"]).values(**mine))
                task = task_of({str(name): value for name, value in row.items() if name not in ("request", "tries")})
                return ClaimedTask(task=task, request=_DECODER.decode(str(row["request"])), tries=int(row["tries"]))
        return None

    async def beat(self) -> None:
        """Keep what is ours."""
        until = self._clock.now() + self._lease_s
        await self._database.write(update(TASKS).where(self._mine()).values(lease_until=until))

    async def attempt(self, task_id: str) -> int:
        """Which attempt comes next: the first that is not in the books as failed. One that completed is made again under its own id."""
        number = 0
        while True:
            query = select(USAGE.c.outcome).where(USAGE.c.id == call_id(task_id, number))
            rows = await self._database.read(query)
            if not rows or rows[0]["outcome"] == Outcome.COMPLETED.value:
                return number
            number += 1

    async def note(self, task_id: str, done: int) -> None:
        """So many pictures are there."""
        await self._database.write(update(TASKS).where(TASKS.c.id == task_id, self._mine()).values(done=done))

    async def succeed(self, task_id: str, pictures: Sequence[TaskPicture]) -> None:
        values = {"done": len(pictures), "pictures": _ENCODER.encode(pictures).decode()}
        await self._end(task_id, TaskState.SUCCEEDED, values)

    async def fail(self, task_id: str, error: ApiError) -> None:
        fault = TaskFault(kind=error.kind, message=error.message, param=error.param)
        await self._end(task_id, TaskState.FAILED, {"done": 0, "fault": _ENCODER.encode(fault).decode()})

    async def _end(self, task_id: str, state: TaskState, values: Mapping[str, object]) -> None:
        """Whoever lost its lease may come when the task is another's, or over: the first end counts."""
        ended = {"state": state.value, "ended_at": self._clock.now(), "request": "", "owner": None, **values}
        await self._database.write(update(TASKS).where(TASKS.c.id == task_id, self._mine()).values(**ended))

    async def put_back(self, task_id: str, wait_s: float) -> None:
        """To be begun again, by whomever, after so long."""
        waits = {"state": TaskState.PENDING.value, "owner": None, "not_before": self._clock.now() + wait_s, "done": 0}
        again = update(TASKS).where(TASKS.c.id == task_id, self._mine())
        await self._database.write(again.values(tries=TASKS.c.tries + 1, scheduled_at=None, **waits))

    async def release(self) -> None:
        """This worker ends: others, or its successor, need not wait for its leases. Nothing may be claimed any more."""
        await self._database.write(update(TASKS).where(self._mine()).values(owner=None, lease_until=0.0))

    async def sweep(self, kept_s: float) -> None:
        """What did not begin in time has failed; what is over for so long is forgotten."""
        past = self._clock.now() - kept_s
        fault = TaskFault(kind=ErrorKind.TIMEOUT, message=_LATE.format(hours=kept_s / 3600))
        failed = {
            "state": TaskState.FAILED.value,
            "ended_at": self._clock.now(),
            "fault": _ENCODER.encode(fault).decode(),
            "request": "",
            "owner": None,
        }
        is_late = and_(TASKS.c.state == TaskState.PENDING.value, TASKS.c.submitted_at <= past)
        await self._database.write(
            update(TASKS).where(is_late).values(**failed),
            delete(TASKS).where(TASKS.c.state.not_in(OPEN), TASKS.c.ended_at <= past),
        )

    def _mine(self):
        return and_(TASKS.c.owner == self._owner, TASKS.c.state == TaskState.RUNNING.value)
