"""A process that commits bookings from 32 tasks as fast as it can, and prints the id of each whose commit has returned."""

import asyncio
import os
import sys
import uuid

from qwenbox.clock import SystemClock
from qwenbox.gateway.journal.registry import JournalConfig, open_journal
from support.bookings import call


async def main(url: str) -> None:
    async with open_journal(url, JournalConfig(), SystemClock()) as journal:

        async def book(number: int) -> None:
            while True:
                id = uuid.uuid4().hex
                await journal.commit(call(id, 1 + number, account=f"acc-{number % 5}", is_owed=True))
                os.write(1, f"{id}\n".encode())

        await asyncio.gather(*[book(number) for number in range(32)])


asyncio.run(main(sys.argv[1]))
