"""What the step from schema 2 to 3 adds; frozen, as all steps are."""

from __future__ import annotations

MORE_3 = (
    "DROP INDEX task_pending",
    "CREATE INDEX task_pending ON task (queue, tenant, rank, seq) WHERE state = 'pending'",
    "ALTER TABLE task ADD COLUMN degraded TEXT",
    "ALTER TABLE task ADD COLUMN after_failure TEXT",
    "ALTER TABLE task ADD COLUMN inherited INTEGER",
    """
CREATE TABLE telling (
    seq      INTEGER PRIMARY KEY,
    upstream INTEGER NOT NULL,
    id       TEXT    NOT NULL,
    state    TEXT    NOT NULL,
    upto     INTEGER NOT NULL
) STRICT
""",
    """
CREATE TABLE hurrying (
    task INTEGER PRIMARY KEY
) STRICT
""",
    """
CREATE TABLE queue_setting (
    queue        TEXT    PRIMARY KEY,
    degrade      TEXT    NOT NULL,
    default_text TEXT,
    by           TEXT,
    at           INTEGER NOT NULL
) STRICT, WITHOUT ROWID
""",
    "CREATE INDEX task_archived ON task (seq) WHERE state = 'archived'",
    """
CREATE TABLE queue_paused (
    queue TEXT    PRIMARY KEY,
    by    TEXT,
    at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID
""",
    """
CREATE TABLE overflow (
    queue       TEXT    PRIMARY KEY,
    max_wait_ms INTEGER NOT NULL,
    rule        TEXT    NOT NULL
) STRICT, WITHOUT ROWID
""",
    """
CREATE TABLE engine_since (
    event INTEGER PRIMARY KEY,
    what  TEXT    NOT NULL
) STRICT
""",
    """
CREATE TABLE same (
    task INTEGER PRIMARY KEY,
    hash INTEGER NOT NULL
) STRICT
""",
    "CREATE INDEX same_hash ON same (hash)",
    """
CREATE TABLE same_upto (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    done INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT
""",
    """
CREATE TABLE waiting (
    tenant TEXT    PRIMARY KEY,
    tasks  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID
""",
    """
INSERT INTO waiting
SELECT t.tenant, count(*), sum(length(CAST(p.body AS BLOB)))
FROM task t JOIN payload p ON p.task = t.seq
WHERE t.state IN ('pending', 'blocked', 'retrying', 'paused', 'scheduled') GROUP BY t.tenant
""",
    """
INSERT INTO waiting
SELECT '', sum(tasks), sum(bytes) FROM waiting WHERE true HAVING count(*) > 0
""",
)
