"""What the step from schema 3 to 4 adds; frozen, as all steps are."""

from __future__ import annotations

MORE_4 = (
    """
CREATE TABLE checkpoint (
    task INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT
""",
    "ALTER TABLE queue_paused ADD COLUMN draining INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN draining INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE result ADD COLUMN more TEXT",
    "ALTER TABLE task ADD COLUMN begins INTEGER",
    "DROP INDEX task_pending",
    """
CREATE INDEX task_pending ON task (queue, tenant, rank, seq, begins) WHERE state = 'pending'
""",
    "DROP TABLE waiting",
    """
CREATE TABLE waiting (
    tenant TEXT    NOT NULL,
    queue  TEXT    NOT NULL,
    tasks  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,
    PRIMARY KEY (tenant, queue)
) STRICT, WITHOUT ROWID
""",
    """
INSERT INTO waiting
SELECT t.tenant, t.queue, count(*), sum(length(CAST(p.body AS BLOB)))
FROM task t JOIN payload p ON p.task = t.seq
WHERE t.state IN ('pending', 'blocked', 'retrying', 'paused', 'scheduled')
GROUP BY t.tenant, t.queue
""",
    """
INSERT INTO waiting
SELECT '', '', sum(tasks), sum(bytes) FROM waiting WHERE true HAVING count(*) > 0
""",
)
