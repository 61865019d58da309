-- What push and e-mail keep beyond 0002. Before deploy: columns are nullable or have defaults, nothing reads them yet.

-- Push -------------------------------------------------------------------------------------------------------------

-- latest_event_id: the event that stands for the effect now; differs from event_id once another block included it.
-- silent: replaces what the phone shows without a sound. replacing: the replacement by "taken back" is under way.
-- delivered: devices that have it, so that only those that failed are tried again.
ALTER TABLE pushes
    ADD COLUMN transaction_id  text,
    ADD COLUMN latest_event_id text NOT NULL,
    ADD COLUMN severity        text NOT NULL DEFAULT 'info' CHECK (severity IN ('info', 'warning', 'critical')),
    ADD COLUMN silent          boolean NOT NULL DEFAULT false,
    ADD COLUMN delivered       uuid[] NOT NULL DEFAULT '{}',
    DROP CONSTRAINT pushes_state_check,
    ADD CONSTRAINT pushes_state_check
        CHECK (state IN ('due', 'sending', 'sent', 'held', 'dropped', 'replacing', 'replaced'));
CREATE INDEX pushes_latest ON pushes (user_address, latest_event_id);
CREATE INDEX pushes_replacing ON pushes (not_before) WHERE state = 'replacing';
CREATE INDEX pushes_age ON pushes (created_at);

-- E-mail -----------------------------------------------------------------------------------------------------------

-- One row per letter: `subject` is what it is about (`digest:weekly:2026-11-16`, `notice:<id>`), so that it is sent once.
-- id is in its unsubscribe link and its Message-ID. not_before while sending: when another worker may try again.
CREATE TABLE mails (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    subject      text NOT NULL,
    kind         text NOT NULL,
    facts        jsonb NOT NULL DEFAULT '{}',
    not_before   timestamptz NOT NULL,
    state        text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'sending', 'sent', 'dropped')),
    reason       text,
    attempts     integer NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (user_address, subject)
);
CREATE INDEX mails_due ON mails (not_before) WHERE state IN ('due', 'sending');
CREATE INDEX mails_age ON mails (created_at);
CREATE INDEX users_digest ON users (digest, time_zone) WHERE digest <> 'off' AND email IS NOT NULL;
CREATE INDEX notifications_recent ON notifications (created_at) WHERE corrected_at IS NULL;
