"""A batch whose window ends before its lines do: what is done is kept, the rest is told."""

import json
import time
from typing import Any

import openai

from e2e.test_batch_kill import submit, wait
from sdk import forms
from support.admin_calls import TESTING, advance

SLOW = '[engine.echo]\nkind = "echo"\ndelay_s = 0.05\n[batch]\nconcurrency = 2\npoll_s = 0.1\n'
COUNT = 300


def test_a_batch_expires_when_its_window_ends(serve: Any) -> None:
    box = serve(toml=SLOW, environment=TESTING)
    with forms.openai_client(box) as client:
        batch_id = submit(client, COUNT)
        wait(client, batch_id, done=4)
        advance(box, 25 * 3600)
        batch = ended(client, batch_id)
        assert ("expired", False) == (batch.status, batch.expired_at is None)
        counts = batch.request_counts
        assert counts.completed > 3 and COUNT == counts.completed + counts.failed
        rest = [json.loads(text) for text in client.files.content(batch.error_file_id).text.splitlines()]
        assert counts.failed == len(rest)
        assert {(None, "batch_expired")} == {(row["response"], row["error"]["code"]) for row in rest}


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    deadline = time.monotonic() + 60
    while (batch := client.batches.retrieve(batch_id)).status != "expired":
        assert time.monotonic() < deadline and batch.status != "completed", batch
        time.sleep(0.05)
    return batch
