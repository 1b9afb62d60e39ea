"""This is where the tables of jobs are declared: batches, their parts and lines' results; tasks, and what is kept of calls."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, Table, Text

from qwenbox.db import METADATA

BATCHES = Table(
    "batches",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("window", Text, nullable=False),
    Column("window_s", Float, nullable=False),
    Column("status", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("faults", Text, nullable=False),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("created_at", Float, nullable=False),
    Column("in_progress_at", Float),
    Column("expires_at", Float),
    Column("finalizing_at", Float),
    Column("completed_at", Float),
    Column("failed_at", Float),
    Column("expired_at", Float),
    Column("cancelling_at", Float),
    Column("cancelled_at", Float),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("usage", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("owner", Text),
    Column("lease_until", Float, nullable=False),
    Index("batches_by_account", "account_id", "created_at"),
    Index("batches_by_status", "status"),
)

# A run of lines. first, count: which, from 0. offset_bytes: where the first begins in the input. claims: how often it was taken.
PARTS = Table(
    "batch_parts",
    METADATA,
    Column("batch_id", Text, primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("offset_bytes", BigInteger, nullable=False),
    Column("is_done", Boolean, nullable=False),
    Column("claims", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", Float, nullable=False),
    Index("batch_parts_open", "batch_id", "is_done", "lease_until"),
)

# body: the line of the output or error file. Gone once the files are written.
RESULTS = Table(
    "batch_results",
    METADATA,
    Column("batch_id", Text, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("is_failed", Boolean, nullable=False),
    Column("input_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("reasoning_tokens", Integer, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index(
        "batch_results_sums",
        "batch_id",
        "is_failed",
        "input_tokens",
        "cached_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost_micros",
    ),
)

# request: what is to be done, gone once the task is over. tries: how often it was begun in vain. not_before: when it may be begun again.
TASKS = Table(
    "tasks",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("submitted_at", Float, nullable=False),
    Column("scheduled_at", Float),
    Column("ended_at", Float),
    Column("total", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("pictures", Text, nullable=False),
    Column("fault", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("owner", Text),
    Column("lease_until", Float, nullable=False),
    Index("tasks_by_account", "account_id", "submitted_at"),
    Index("tasks_by_state", "state", "submitted_at"),
)

# What lies under these names is fetched by signed links (results.py).
KEPT_RESULTS = Table(
    "kept_results",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("kept_results_by_end", "expires_at"),
)
