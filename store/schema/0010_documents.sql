-- Documents that a job writes to the object storage. Before deploy: nothing here is read by older code.

-- One row per export that a user asked for. `query` is what was searched for, sealed: people search for words of memos.
-- While it is written, `place` says where to go on, and `upload` and `parts` what of the object is there already: a
-- worker that dies loses the part in hand, no more. file_name and media are what the download is called.
CREATE TABLE exports (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    kind         text NOT NULL CHECK (kind IN ('transactions', 'account', 'report')),
    format       text NOT NULL,
    params       jsonb NOT NULL DEFAULT '{}',
    query        bytea,
    fingerprint  bytea NOT NULL,
    status       text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    reason       text,
    file_name    text NOT NULL,
    media        text NOT NULL,
    object       text NOT NULL,
    upload       text,
    parts        text[] NOT NULL DEFAULT '{}',
    place        jsonb,
    -- the run that writes it, and until when nobody else may: two would spoil each other's parts
    run          uuid,
    run_until    timestamptz,
    rows         bigint NOT NULL DEFAULT 0,
    total_rows   bigint,
    bytes        bigint NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    -- when the object and this row go
    expires_at   timestamptz NOT NULL
);
-- The same asked again while it is under way is the same export.
CREATE UNIQUE INDEX exports_under_way ON exports (user_address, fingerprint) WHERE status IN ('queued', 'running');
CREATE INDEX exports_user ON exports (user_address, created_at DESC, id DESC);
CREATE INDEX exports_expiry ON exports (expires_at);
