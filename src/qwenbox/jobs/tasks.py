"""This is where asynchronous tasks are submitted, shown, listed and cancelled: the rows their owners see.

A task is one call for later. Its row is committed before its id is told, so that what was accepted survives the end of every process.
"""

import uuid

import msgspec
from sqlalchemy import ColumnElement, func, insert, or_, select, update

from qwenbox.clock import Clock
from qwenbox.db import Database
from qwenbox.dialects.dashscope.errors import NOT_PENDING
from qwenbox.jobs.tables import TASKS
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.job import NewTask, Task, TasksAsked, TasksPage, TaskState

OPEN = (TaskState.PENDING.value, TaskState.RUNNING.value)
# What a task's owner may see of its row.
SHOWN = [column for column in TASKS.c if column.name in Task.__struct_fields__]
_ENCODER = msgspec.json.Encoder()


class TasksConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tasks]`. concurrency: tasks that run or wait for an engine at a time, over all workers of the box.

    poll_s: how soon a worker sees what another one was told. lease_s: how long a task of a process that died waits for others.
    kept_s: how long a task is known after its end; one that has not ended so long after it came has failed.
    most_open: tasks of an account that wait or run.
    """

    concurrency: int = 4
    poll_s: float = 1.0
    lease_s: float = 15.0
    kept_s: float = 24 * 3600.0
    most_open: int = 1_000

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.most_open < 1 or min(self.poll_s, self.lease_s, self.kept_s) <= 0:
            raise ValueError("concurrency and most_open must be at least 1, poll_s, lease_s and kept_s more than 0")


class Tasks:
    """wakeup: tells this process's worker that there is something to do."""

    def __init__(self, database: Database, config: TasksConfig, clock: Clock, wakeup: Wakeup) -> None:
        self._database = database
        self._config = config
        self._clock = clock
        self.wakeup = wakeup

    async def submit(self, caller: Caller, new: NewTask, request: ImageRequest) -> Task:
        """Raises ApiError(RATE_LIMITED) when too many of the account's tasks have not ended yet."""
        waiting = select(func.count().label("count")).where(TASKS.c.account_id == caller.account_id, TASKS.c.state.in_(OPEN))
        if int(str((await self._database.read(waiting))[0]["count"])) >= self._config.most_open:
            text = f"Your account has {self._config.most_open} tasks that have not ended ([tasks] most_open); wait for some of them."
            raise ApiError(ErrorKind.RATE_LIMITED, text, retry_after_s=self._config.poll_s)
        task = Task(
            id=str(uuid.uuid4()),
            account_id=caller.account_id,
            key_id=caller.key_id,
            request_id=new.request_id,
            endpoint=new.endpoint,
            model=new.model,
            prompt=new.prompt,
            state=TaskState.PENDING,
            submitted_at=self._clock.now(),
            total=new.total,
        )
        await self._database.write(insert(TASKS).values(**_row(task), request=_ENCODER.encode(request).decode()))
        self.wakeup.call()
        return task

    async def get(self, account_id: str, task_id: str) -> Task | None:
        """As it stands now; None for what is not the account's, or over for too long."""
        # What no id can be is not asked of a database, which may refuse the very characters.
        if not (len(task_id) <= 128 and task_id.isascii() and task_id.isprintable()):
            return None
        query = select(*SHOWN).where(TASKS.c.id == task_id, TASKS.c.account_id == account_id, self._known())
        rows = await self._database.read(query)
        return task_of(rows[0]) if rows else None

    async def cancel(self, account_id: str, task_id: str) -> None:
        """Raises ApiError(INVALID_REQUEST) unless it was waiting: nothing that runs is taken back."""
        if await self.get(account_id, task_id) is not None:
            pending = (TASKS.c.id == task_id, TASKS.c.state == TaskState.PENDING.value)
            values = {"state": TaskState.CANCELED.value, "ended_at": self._clock.now(), "request": ""}
            changed = await self._database.change(
                lambda connection: connection.execute(update(TASKS).where(*pending).values(**values)).rowcount
            )
            if changed:
                return
        raise ApiError(ErrorKind.INVALID_REQUEST, NOT_PENDING)

    async def page(self, account_id: str, asked: TasksAsked) -> TasksPage:
        """Newest first."""
        wanted = [TASKS.c.account_id == account_id, self._known()]
        if asked.submitted_after is not None:
            wanted.append(TASKS.c.submitted_at >= asked.submitted_after)
        if asked.submitted_before is not None:
            wanted.append(TASKS.c.submitted_at <= asked.submitted_before)
        if asked.model:
            wanted.append(TASKS.c.model == asked.model)
        if asked.state is not None:
            wanted.append(TASKS.c.state == asked.state.value)
        if asked.key_id:
            wanted.append(TASKS.c.key_id == asked.key_id)
        total = int(str((await self._database.read(select(func.count().label("count")).where(*wanted)))[0]["count"]))
        query = select(*SHOWN).where(*wanted).order_by(TASKS.c.submitted_at.desc(), TASKS.c.id.desc())
        rows = await self._database.read(query.limit(asked.page_size).offset((asked.page_no - 1) * asked.page_size))
        return TasksPage(tasks=tuple(task_of(row) for row in rows), total=total)

    def _known(self) -> ColumnElement[bool]:
        return or_(TASKS.c.ended_at.is_(None), TASKS.c.ended_at > self._clock.now() - self._config.kept_s)


def task_of(row: dict[str, object]) -> Task:
    """A row as its owner sees it."""
    parsed = {name: msgspec.json.decode(str(row[name])) for name in ("pictures", "fault")}
    return msgspec.convert({**row, **parsed}, Task)


def _row(task: Task) -> dict[str, object]:
    row = msgspec.structs.asdict(task)
    texts = {name: _ENCODER.encode(row[name]).decode() for name in ("pictures", "fault")}
    return {**row, **texts, "state": task.state.value, "tries": 0, "not_before": 0.0, "owner": None, "lease_until": 0.0}
