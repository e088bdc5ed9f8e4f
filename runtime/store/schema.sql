-- The durable queue. Hot rows are small; payloads, results and the event log stand apart.
-- `seq` is a task's number in order of submission; `id` is the name its client gave it.
-- Times are Unix milliseconds. States are the strings of autoglm.types.TaskState.

CREATE TABLE task (
    seq         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    state       TEXT    NOT NULL,
    rank        INTEGER NOT NULL,           -- smaller runs first
    attempt     INTEGER NOT NULL DEFAULT 0, -- fences late writers
    failures    INTEGER NOT NULL DEFAULT 0,
    deaths      INTEGER NOT NULL DEFAULT 0, -- engine deaths it was present at
    last_event  INTEGER,                    -- its newest row in `event`
    owner       TEXT,                       -- the batcher it is claimed for
    tenant      TEXT    NOT NULL,
    queue       TEXT    NOT NULL,
    priority    INTEGER NOT NULL,
    kind        TEXT,
    key         TEXT,
    job         TEXT,                       -- the job whose line made it
    stream      INTEGER NOT NULL,
    shared      INTEGER NOT NULL DEFAULT 0, -- job lines or other tasks look at its end
    created_at  INTEGER NOT NULL,           -- logical time: never goes back
    started_at  INTEGER,
    finished_at INTEGER,
    deadline_at INTEGER,
    expires_at  INTEGER,
    wake_at     INTEGER,                    -- when something is due: retry or expiry
    error       TEXT,                       -- JSON: code and message of the last failure
    degraded    TEXT,                       -- how it was answered without an engine, if it was
    after_failure TEXT,                     -- of one that came after others: cancel or run
    inherited   INTEGER,                    -- a more urgent one's priority, which waits for it
    begins      INTEGER                     -- the same for tasks that share a long beginning
) STRICT;

CREATE UNIQUE INDEX task_key ON task (tenant, key) WHERE key IS NOT NULL;
CREATE INDEX task_pending ON task (queue, tenant, rank, seq, begins) WHERE state = 'pending';
CREATE INDEX task_running ON task (owner) WHERE state = 'running';
CREATE INDEX task_due ON task (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX task_job ON task (job, seq) WHERE job IS NOT NULL;
CREATE INDEX task_ended ON task (finished_at) WHERE finished_at IS NOT NULL AND job IS NULL;
CREATE INDEX task_dead ON task (seq) WHERE state = 'dead';
CREATE INDEX task_archived ON task (seq) WHERE state = 'archived';

CREATE TABLE payload (
    task INTEGER PRIMARY KEY,
    body TEXT NOT NULL                      -- JSON: messages or prompt, sampling
) STRICT;

CREATE TABLE original (                     -- what an edited task was before its first edit
    task INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE checkpoint (                   -- an open task's answer as far as it was generated
    task INTEGER PRIMARY KEY,
    body TEXT NOT NULL                      -- JSON: tokens, text
) STRICT;

CREATE TABLE failure (                      -- what went wrong in an attempt
    task    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    code    TEXT    NOT NULL,
    message TEXT    NOT NULL,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE result (                       -- the primary key is the promise: one result a task
    task              INTEGER PRIMARY KEY,
    text              TEXT    NOT NULL,
    finish_reason     TEXT    NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    more              TEXT                  -- JSON: log probabilities and further answers
) STRICT;

CREATE TABLE event (                        -- every transition, in order
    seq        INTEGER PRIMARY KEY,
    task       INTEGER NOT NULL,
    prev       INTEGER,                     -- the same task's event before this one
    from_state TEXT,
    to_state   TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    cost       INTEGER NOT NULL,            -- tokens that the attempt took
    by         TEXT                         -- the person who did it; NULL: the server, or a submit
) STRICT;

CREATE TABLE blocker (                      -- `task` waits for `upstream` to end
    upstream INTEGER NOT NULL,
    task     INTEGER NOT NULL,
    PRIMARY KEY (upstream, task)
) STRICT, WITHOUT ROWID;
CREATE INDEX blocker_task ON blocker (task);

CREATE TABLE telling (                      -- an end that not all who waited for it know of
    seq      INTEGER PRIMARY KEY,
    upstream INTEGER NOT NULL,
    id       TEXT    NOT NULL,
    state    TEXT    NOT NULL,
    upto     INTEGER NOT NULL               -- tasks above this one came after it
) STRICT;

CREATE TABLE hurrying (                     -- tasks whose urgency is to be handed on
    task INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE job (
    id           TEXT    PRIMARY KEY,
    tenant       TEXT    NOT NULL,
    output       TEXT    NOT NULL,
    input_hash   TEXT    NOT NULL,
    options_hash TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    submitted    INTEGER NOT NULL DEFAULT 0, -- lines up to this one are in
    sealed       INTEGER NOT NULL DEFAULT 0, -- when the last line came in; 0: more may come
    lines        INTEGER NOT NULL DEFAULT 0, -- rows of job_line
    ended        INTEGER NOT NULL DEFAULT 0, -- of those, how many have ended
    current      INTEGER NOT NULL DEFAULT 1, -- 0: another job writes this output now
    draining     INTEGER NOT NULL DEFAULT 0  -- no more lines are taken until it is resumed
) STRICT;
CREATE UNIQUE INDEX job_output ON job (tenant, output) WHERE current = 1;

CREATE TABLE job_line (
    job       TEXT    NOT NULL,
    line      INTEGER NOT NULL,
    custom_id TEXT,
    url       TEXT    NOT NULL,
    task      INTEGER,                      -- NULL: the line is no task, `error` says why
    error     TEXT,
    ended     INTEGER,                      -- its place in the order of endings
    PRIMARY KEY (job, line)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_line_task ON job_line (task) WHERE task IS NOT NULL;
CREATE INDEX job_line_ended ON job_line (job, ended) WHERE ended IS NOT NULL;

CREATE TABLE chore (                        -- what is left to do of a request, in slices
    job  TEXT    NOT NULL,
    what TEXT    NOT NULL,                  -- cancel: the open tasks of a job started over
                                            -- remove: lines and tasks of a job that is gone
    done INTEGER NOT NULL DEFAULT 0,        -- tasks up to this one are done with
    PRIMARY KEY (job, what)
) STRICT, WITHOUT ROWID;

CREATE TABLE floor (                        -- numbers given out once are not given out again,
    id         INTEGER PRIMARY KEY CHECK (id = 1), -- even when no row holds them any more
    task       INTEGER NOT NULL,
    event      INTEGER NOT NULL,
    logical_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE engine_breaker (               -- engines that must not be started before a time
    engine     TEXT    PRIMARY KEY,
    what       TEXT    NOT NULL,            -- kind and model: another one starts afresh
    trips      INTEGER NOT NULL,            -- openings in a row
    open_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE queue_setting (                -- what was set while the server ran
    queue        TEXT    PRIMARY KEY,
    degrade      TEXT    NOT NULL,
    default_text TEXT,
    by           TEXT,                      -- the person who did it
    at           INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE queue_paused (                 -- of which nothing is begun, or
    queue    TEXT    PRIMARY KEY,
    by       TEXT,                          -- the person who did it
    at       INTEGER NOT NULL,
    draining INTEGER NOT NULL DEFAULT 0     -- into which nothing new is taken
) STRICT, WITHOUT ROWID;

CREATE TABLE overflow (                     -- queues in which nothing waits longer than so
    queue       TEXT    PRIMARY KEY,
    max_wait_ms INTEGER NOT NULL,
    rule        TEXT    NOT NULL            -- reject, archive, refuse_lower
) STRICT, WITHOUT ROWID;

CREATE TABLE engine_since (                 -- results recorded by events above this one are of
    event INTEGER PRIMARY KEY,              -- this kind of engine and model, up to the next row
    what  TEXT    NOT NULL
) STRICT;

CREATE TABLE same (                         -- results by what was asked for, to be found again
    task INTEGER PRIMARY KEY,
    hash INTEGER NOT NULL                   -- of tenant, engine and content
) STRICT;
CREATE INDEX same_hash ON same (hash);

CREATE TABLE same_upto (                    -- there is a row while `same` is kept
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    done INTEGER NOT NULL,                  -- tasks up to this one have been looked at,
    last INTEGER NOT NULL                   -- up to this one have to be
) STRICT;

CREATE TABLE waiting (                      -- how much waits: neither runs nor has ended
    tenant TEXT    NOT NULL,                -- '': of all of them
    queue  TEXT    NOT NULL,                -- '' in that row
    tasks  INTEGER NOT NULL,
    bytes  INTEGER NOT NULL,                -- of their payloads
    PRIMARY KEY (tenant, queue)
) STRICT, WITHOUT ROWID;

CREATE TABLE tally (                        -- how many tasks are in each state
    state TEXT    PRIMARY KEY,
    tasks INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
