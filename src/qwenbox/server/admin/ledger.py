"""This is where the books are checked over HTTP."""

from qwenbox.client.shapes import LedgerCheck, Nothing
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts


async def check(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> LedgerCheck:
    """Add up the books: entries, balances, budgets and usage rows. Reads everything, so it takes its time on a large database."""
    problems = await parts.ledger.check()
    return LedgerCheck(is_good=not problems, problems=tuple(problems))


OPERATIONS: tuple[Operation, ...] = (operation("GET /ledger/check", check),)
