"""This is where the books are checked against themselves: entries, purses and usage tell the same story, or it is said where not."""

from sqlalchemy import text

from qwenbox.db import Database

_MOST_TOLD = 50

# One statement, so that all its parts see the same moment of a box that is taking calls. Each part yields what is wrong, with whom, and
# the two figures that should be one. Plain enough for SQLite and PostgreSQL alike.
# "<call>/refund" is the journal's: a call that landed after its caller was told that it failed costs nothing, in its row too. A refund by
# hand is "refund/<call>" and leaves the row as it is.
COMPLAINTS = text(f"""
SELECT * FROM (
  SELECT 'the sides of a transaction do not sum to 0' AS complaint, transaction_id AS subject,
         0 AS expected, CAST(SUM(amount_micros) AS BIGINT) AS found
  FROM ledger_entries GROUP BY transaction_id HAVING SUM(amount_micros) <> 0

  UNION ALL
  SELECT 'a balance is not the sum of its entries', subject, CAST(SUM(expected) AS BIGINT), CAST(SUM(found) AS BIGINT) FROM (
    SELECT 'balance/' || SUBSTR(ledger_account, 10) AS subject, amount_micros AS expected, 0 AS found
    FROM ledger_entries WHERE ledger_account LIKE 'customer/%'
    UNION ALL SELECT id, 0, amount_micros FROM purses WHERE id LIKE 'balance/%'
  ) AS balances GROUP BY subject HAVING SUM(expected) <> SUM(found)

  UNION ALL
  SELECT 'a month''s spending is not the cost of its calls', subject, CAST(SUM(expected) AS BIGINT), CAST(SUM(found) AS BIGINT) FROM (
    SELECT 'spent/' || account_id || '/' || SUBSTR(day, 1, 7) AS subject, -cost_micros AS expected, 0 AS found FROM usage
    UNION ALL SELECT 'spent/' || key_id || '/' || SUBSTR(day, 1, 7), -cost_micros, 0 FROM usage
    UNION ALL SELECT 'spent/' || account_id || '/' || SUBSTR(day, 1, 7), -cost_micros, 0 FROM usage_days
    UNION ALL SELECT 'spent/' || key_id || '/' || SUBSTR(day, 1, 7), -cost_micros, 0 FROM usage_days
    UNION ALL SELECT id, 0, amount_micros FROM purses WHERE id LIKE 'spent/%'
  ) AS months GROUP BY subject HAVING SUM(expected) <> SUM(found)

  UNION ALL
  SELECT 'a call''s entries are not its cost', usage.id, -usage.cost_micros,
         COALESCE(billed.amount_micros, 0) + COALESCE(void.amount_micros, 0)
  FROM usage
  LEFT JOIN ledger_entries AS billed ON billed.transaction_id = usage.id AND billed.ledger_account = 'customer/' || usage.account_id
  LEFT JOIN ledger_entries AS void
    ON void.transaction_id = usage.id || '/refund' AND void.ledger_account = 'customer/' || usage.account_id
  WHERE COALESCE(billed.amount_micros, 0) + COALESCE(void.amount_micros, 0) <> -usage.cost_micros

  UNION ALL
  SELECT 'an account''s calls are not its entries for calls', subject, CAST(SUM(expected) AS BIGINT), CAST(SUM(found) AS BIGINT) FROM (
    SELECT 'customer/' || account_id AS subject, -cost_micros AS expected, 0 AS found FROM usage
    UNION ALL SELECT 'customer/' || account_id, -cost_micros, 0 FROM usage_days
    UNION ALL SELECT ledger_account, 0, amount_micros FROM ledger_entries
      WHERE ledger_account LIKE 'customer/%' AND (kind = 'call' OR (kind = 'refund' AND transaction_id LIKE '%/refund'))
  ) AS calls GROUP BY subject HAVING SUM(expected) <> SUM(found)

  UNION ALL
  SELECT 'entries are in more than one currency', MIN(currency) || ' and ' || MAX(currency), 1, COUNT(DISTINCT currency)
  FROM ledger_entries HAVING COUNT(DISTINCT currency) > 1
) AS complaints LIMIT {_MOST_TOLD}
""")  # noqa: S608 (nothing in it comes from outside)


async def complaints(database: Database) -> list[str]:
    """What does not add up, at most _MOST_TOLD of it; reads every entry, so it takes a second per million of them."""
    rows = await database.read(COMPLAINTS)
    return [f"{row['complaint']}: {row['subject']} should be {row['expected']} and is {row['found']} micro-units" for row in rows]
