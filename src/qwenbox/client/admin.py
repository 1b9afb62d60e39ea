"""This is where a box is administered from a program: the admin API, typed, over HTTP or in the same process.

async with open_remote("http://127.0.0.1:8000", Secret(key)) as admin:
    account = await admin.create_account(NewAccount(name="alice"))
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias, TypeVar
from urllib.parse import quote, unquote, urlencode

import msgspec

from qwenbox.client import catalog as catalogue
from qwenbox.client import jobs, shapes, sign_in
from qwenbox.client.budgets import AccountBudget, BudgetsAsked
from qwenbox.client.recordings import Forgotten, Recording, RecordingsForgotten, RecordingState
from qwenbox.client.series import Series, SeriesAsked
from qwenbox.client.shapes import Page
from qwenbox.client.system import Finding, Setting, System
from qwenbox.client.usage import Call, CallsAsked, Receipt, Refund, Statement, UsageAsked
from qwenbox.remote import Remote, RemoteReply, RemoteRequest, Timeouts
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

T = TypeVar("T")

# ASGI's own shapes.
Application: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[MutableMapping[str, Any]]], Callable[[MutableMapping[str, Any]], Awaitable[None]]],
    Awaitable[None],
]

_PREFIX = "/admin/v1"
PAGE_SIZE = 1_000

# A check of the books reads everything there is.
_TIMEOUTS = Timeouts(connect_s=5.0, first_byte_s=300.0, between_bytes_s=60.0)

_KINDS = {
    400: ErrorKind.INVALID_REQUEST,
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.FORBIDDEN,
    404: ErrorKind.NOT_FOUND,
    409: ErrorKind.CONFLICT,
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.RATE_LIMITED,
    503: ErrorKind.OVERLOADED,
}


class Transport(Protocol):
    """Takes a request below the box's address, brings the whole answer. Raises ApiError when nobody answers."""

    async def send(self, method: str, target: str, headers: dict[str, str], body: bytes) -> RemoteReply: ...


class OverHttp:
    """To a running box. address: e.g. "http://127.0.0.1:8000"."""

    def __init__(self, remote: Remote, address: str) -> None:
        self._remote = remote
        self._address = address.rstrip("/")

    async def send(self, method: str, target: str, headers: dict[str, str], body: bytes) -> RemoteReply:
        peer = f"The box at {self._address}"
        request = RemoteRequest(method=method, url=self._address + target, headers=headers, body=body, timeouts=_TIMEOUTS, peer=peer)
        return await self._remote.call(request)


class InProcess:
    """To the same API as an ASGI application in this process, whether a box runs or not."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def send(self, method: str, target: str, headers: dict[str, str], body: bytes) -> RemoteReply:
        path, _, query = target.partition("?")
        status, told, pieces = 500, dict[str, str](), list[bytes]()

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            nonlocal status, told
            if message["type"] == "http.response.start":
                status = message["status"]
                told = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            else:
                pieces.append(message.get("body", b""))

        await self._application(_scope(method, path, query, headers), receive, send)
        return RemoteReply(status=status, headers=told, body=b"".join(pieces))


class AdminClient:
    """The admin API. Every call raises ApiError in the box's own words; accounts and keys are named by id or name."""

    def __init__(self, transport: Transport, key: Secret, page_size: int = PAGE_SIZE) -> None:
        self._transport = transport
        self._key = key
        self._page_size = page_size

    async def accounts(self) -> tuple[shapes.Account, ...]:
        """All, oldest first."""
        return tuple([account async for account in self._every("/accounts", {}, shapes.Account)])

    async def create_account(self, wanted: shapes.NewAccount) -> shapes.Account:
        return await self._call("POST /accounts", shapes.Account, body=wanted)

    async def account(self, account: str) -> shapes.Account:
        return await self._call(f"GET /accounts/{_segment(account)}", shapes.Account)

    async def change_account(self, account: str, change: shapes.AccountChange) -> shapes.Account:
        return await self._call(f"PATCH /accounts/{_segment(account)}", shapes.Account, body=change)

    async def set_password(self, account: str, password: Secret, session: Secret | None = None) -> None:
        """It ends the account's sessions in the console, but for `session`."""
        wanted = shapes.NewPassword(password=password.reveal(), session=session.reveal() if session else "")
        await self._send(f"PUT /accounts/{_segment(account)}/password", {}, msgspec.json.encode(wanted))

    async def top_up(self, account: str, payment: shapes.TopUp) -> shapes.Balance:
        return await self._call(f"POST /accounts/{_segment(account)}/top-ups", shapes.Balance, body=payment)

    async def adjust(self, account: str, correction: shapes.Adjustment) -> shapes.Balance:
        return await self._call(f"POST /accounts/{_segment(account)}/adjustments", shapes.Balance, body=correction)

    async def balance(self, account: str) -> shapes.Balance:
        return await self._call(f"GET /accounts/{_segment(account)}/balance", shapes.Balance)

    async def entries(self, account: str, paging: shapes.Paging) -> Page[shapes.Entry]:
        return await self._call(f"GET /accounts/{_segment(account)}/entries", Page[shapes.Entry], query=_query(paging))

    async def keys(self, account: str = "") -> tuple[shapes.Key, ...]:
        """All, oldest first, revoked ones too."""
        query = {"account": account} if account else {}
        return tuple([key async for key in self._every("/keys", query, shapes.Key)])

    async def create_key(self, wanted: shapes.NewKey) -> shapes.IssuedKey:
        return await self._call("POST /keys", shapes.IssuedKey, body=wanted)

    async def change_key(self, key: str, change: shapes.KeyChange) -> shapes.Key:
        return await self._call(f"PATCH /keys/{_segment(key)}", shapes.Key, body=change)

    async def revoke_key(self, key: str) -> shapes.Key:
        return await self._call(f"DELETE /keys/{_segment(key)}", shapes.Key)

    async def usage(self, asked: UsageAsked) -> Statement:
        return await self._call("GET /usage", Statement, query=_query(asked))

    async def usage_csv(self, asked: UsageAsked) -> str:
        return (await self._send("GET /usage.csv", _query(asked))).decode()

    async def calls(self, asked: CallsAsked) -> Page[Call]:
        """Newest first."""
        return await self._call("GET /usage/calls", Page[Call], query=_query(asked))

    async def calls_csv(self, asked: CallsAsked) -> str:
        """The newest 10,000 of those that are wanted."""
        return (await self._send("GET /usage/calls.csv", _query(asked))).decode()

    async def series(self, asked: SeriesAsked) -> Series:
        """Calls over time, step by step."""
        return await self._call("GET /series", Series, query=_query(asked))

    async def budgets(self, asked: BudgetsAsked) -> Page[AccountBudget]:
        """What accounts and keys may spend and have spent this month."""
        return await self._call("GET /budgets", Page[AccountBudget], query=_query(asked))

    async def recordings(self) -> RecordingState:
        return await self._call("GET /recordings", RecordingState)

    async def recording(self, request_id: str) -> Recording:
        """A call's prompt and answer. Raises ApiError(NOT_FOUND) when they were not kept."""
        return await self._call(f"GET /receipts/{_segment(request_id)}/recording", Recording)

    async def forget_recording(self, request_id: str) -> Forgotten:
        return await self._call(f"DELETE /receipts/{_segment(request_id)}/recording", Forgotten)

    async def forget_recordings(self, wanted: RecordingsForgotten) -> Forgotten:
        """Of all, unless it says of whom."""
        return await self._call("DELETE /recordings", Forgotten, query=_query(wanted))

    async def receipt(self, request_id: str) -> Receipt:
        return await self._call(f"GET /receipts/{_segment(request_id)}", Receipt)

    async def refund(self, request_id: str, note: str = "") -> shapes.Balance:
        """Give a call's whole cost back, once."""
        return await self._call(f"POST /receipts/{_segment(request_id)}/refund", shapes.Balance, body=Refund(note=note))

    async def limits(self) -> tuple[shapes.WindowState, ...]:
        """Windows in use; only of a running box."""
        return (await self._call("GET /limits", Page[shapes.WindowState])).items

    async def tiers(self) -> tuple[shapes.TierLimits, ...]:
        """What an account can be in; only of a running box."""
        return (await self._call("GET /limits/tiers", Page[shapes.TierLimits])).items

    async def prices(self) -> shapes.PriceBook:
        return await self._call("GET /prices", shapes.PriceBook)

    async def engines(self) -> tuple[shapes.ModelHealth, ...]:
        """Only of a running box."""
        return (await self._call("GET /engines", Page[shapes.ModelHealth])).items

    async def catalog(self) -> tuple[catalogue.Model, ...]:
        """In the catalog's order; only of a running box."""
        return tuple([model async for model in self._every("/models", {}, catalogue.Model)])

    async def model(self, model: str) -> catalogue.Model:
        return await self._call(f"GET /models/{_segment(model)}", catalogue.Model)

    async def pull(self, model: str) -> catalogue.Pull:
        """Start to fetch its weights."""
        return await self._call(f"POST /models/{_segment(model)}/pull", catalogue.Pull)

    async def pull_state(self, model: str) -> catalogue.Pull:
        return await self._call(f"GET /models/{_segment(model)}/pull", catalogue.Pull)

    async def cancel_pull(self, model: str) -> catalogue.Pull:
        return await self._call(f"DELETE /models/{_segment(model)}/pull", catalogue.Pull)

    async def pulls(self) -> tuple[catalogue.Pull, ...]:
        """Those that run, and those that ended without the weights being here."""
        return (await self._call("GET /pulls", Page[catalogue.Pull])).items

    async def load(self, model: str) -> catalogue.Model:
        return await self._call(f"POST /models/{_segment(model)}/load", catalogue.Model)

    async def unload(self, model: str) -> catalogue.Model:
        return await self._call(f"POST /models/{_segment(model)}/unload", catalogue.Model)

    async def measure(self, model: str) -> catalogue.Speed:
        """Takes as long as reading some hundred tokens and writing 64."""
        return await self._call(f"POST /models/{_segment(model)}/measure", catalogue.Speed)

    async def batches(self, asked: jobs.BatchesAsked) -> Page[jobs.BatchJob]:
        """Of all accounts, newest first; only of a running box."""
        return await self._call("GET /batches", Page[jobs.BatchJob], query=_query(asked))

    async def batch(self, batch: str) -> jobs.BatchJob:
        return await self._call(f"GET /batches/{_segment(batch)}", jobs.BatchJob)

    async def create_batch(self, wanted: jobs.NewBatchJob) -> jobs.BatchJob:
        return await self._call("POST /batches", jobs.BatchJob, body=wanted)

    async def cancel_batch(self, batch: str) -> jobs.BatchJob:
        return await self._call(f"POST /batches/{_segment(batch)}/cancel", jobs.BatchJob)

    async def system(self) -> System:
        """Only of a running box."""
        return await self._call("GET /system", System)

    async def findings(self) -> tuple[Finding, ...]:
        """Trouble first; only of a running box."""
        return (await self._call("GET /system/findings", Page[Finding])).items

    async def settings(self) -> tuple[Setting, ...]:
        """Those in force; only of a running box."""
        return (await self._call("GET /system/settings", Page[Setting])).items

    async def cache(self) -> shapes.CacheState:
        return await self._call("GET /cache", shapes.CacheState)

    async def purge_cache(self, wanted: shapes.CachePurge) -> shapes.CachePurged:
        """Forget kept answers, of all unless it says of whom."""
        return await self._call("DELETE /cache", shapes.CachePurged, query=_query(wanted))

    async def check_ledger(self) -> shapes.LedgerCheck:
        return await self._call("GET /ledger/check", shapes.LedgerCheck)

    async def clock(self) -> shapes.ClockState:
        return await self._call("GET /clock", shapes.ClockState)

    async def advance_clock(self, seconds_s: float) -> shapes.ClockState:
        return await self._call("POST /clock", shapes.ClockState, body=shapes.ClockAdvance(advance_s=seconds_s))

    async def console_state(self) -> sign_in.ConsoleState:
        return await self._call("GET /console", sign_in.ConsoleState)

    async def login_link(self) -> sign_in.LoginLink:
        """For one browser, once."""
        return await self._call("POST /console/links", sign_in.LoginLink)

    async def log_in(self, wanted: sign_in.NewSession) -> sign_in.Session:
        return await self._call("POST /console/sessions", sign_in.Session, body=wanted)

    async def session(self, token: Secret) -> sign_in.Session:
        """The session, used with this. Raises ApiError(UNAUTHENTICATED) when it is over."""
        return await self._call("POST /console/sessions/check", sign_in.Session, body=sign_in.SessionToken(token=token.reveal()))

    async def log_out(self, token: Secret) -> None:
        await self._send("POST /console/sessions/end", {}, msgspec.json.encode(sign_in.SessionToken(token=token.reveal())))

    async def _every(self, path: str, query: dict[str, str], kind: type[T]) -> AsyncIterator[T]:
        cursor: str | None = ""
        while cursor is not None:
            asked = {**query, "limit": str(self._page_size), **({"cursor": cursor} if cursor else {})}
            # A generic alias is a type at run time; the checker only knows it with a fixed argument.
            page = msgspec.json.decode(await self._send(f"GET {path}", asked), type=Page[kind])
            for item in page.items:
                yield item
            cursor = page.next_cursor

    async def _call(self, route: str, kind: type[T], *, query: dict[str, str] | None = None, body: msgspec.Struct | None = None) -> T:
        data = await self._send(route, query or {}, b"" if body is None else msgspec.json.encode(body))
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise ApiError(ErrorKind.ENGINE_FAILED, "The box answered something that is no answer of the admin API.") from error

    async def _send(self, route: str, query: dict[str, str], body: bytes = b"") -> bytes:
        method, _, path = route.partition(" ")
        headers = {"authorization": f"Bearer {self._key.reveal()}", "content-type": "application/json", "accept": "*/*"}
        target = _PREFIX + path + (f"?{urlencode(query)}" if query else "")
        reply = await self._transport.send(method, target, headers, body)
        if reply.status >= 300:
            raise _refused(reply)
        return reply.body


@asynccontextmanager
async def open_remote(address: str, key: Secret) -> AsyncGenerator[AdminClient]:
    """A client of the box at that address. key: its admin key."""
    async with Remote() as remote:
        yield AdminClient(OverHttp(remote, address), key)


def _refused(reply: RemoteReply) -> ApiError:
    try:
        problem = msgspec.json.decode(reply.body, type=shapes.Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ApiError(_KINDS.get(reply.status, ErrorKind.ENGINE_FAILED), f"The box answered HTTP {reply.status}.")
    kinds = {kind.value: kind for kind in ErrorKind}
    kind = kinds.get(problem.code) or _KINDS.get(reply.status, ErrorKind.ENGINE_FAILED)
    wait = reply.headers.get("retry-after", "")
    return ApiError(kind, problem.message, param=problem.param, retry_after_s=float(wait) if wait.isdecimal() else None)


def _segment(name: str) -> str:
    return quote(name, safe="")


def _query(asked: msgspec.Struct) -> dict[str, str]:
    return {name: str(value) for name, value in msgspec.to_builtins(asked).items() if value not in (None, "")}


def _scope(method: str, path: str, query: str, headers: dict[str, str]) -> MutableMapping[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "query_string": query.encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "server": ("in-process", 0),
        "client": None,
    }
