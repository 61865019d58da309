-- Answers to repeated calls, and pictures on their way to a category. Before deploy: nothing here is read by older code.

-- One row per Idempotency-Key of a user. status null: the call runs, or died and its lease (claimed_at) will end.
CREATE TABLE idempotency_keys (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    fingerprint  bytea NOT NULL,
    claim        uuid NOT NULL,
    claimed_at   timestamptz NOT NULL DEFAULT now(),
    status       smallint,
    body         bytea NOT NULL DEFAULT '',
    headers      jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (user_address, key)
);
CREATE INDEX idempotency_keys_claimed ON idempotency_keys (claimed_at);

-- The last picture that a user sent for a category, and how far it is. `upload` names the raw object, which is private
-- and goes after processing; `picture` names what came of it: content-addressed, shared by whoever sent the same.
CREATE TABLE category_images (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    category_id  uuid NOT NULL REFERENCES categories (id) ON DELETE CASCADE,
    upload       text NOT NULL,
    status       text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'processing', 'done', 'refused')),
    reason       text,
    picture      text,
    tries        integer NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_address, category_id)
);
CREATE INDEX category_images_picture ON category_images (picture) WHERE picture IS NOT NULL;
