-- Friends, invitations, avatars and comparisons. Before deploy: older code neither reads nor breaks on any of it.

-- Comparisons with friends need the consent of both; nobody has given it before they were asked.
ALTER TABLE users ADD COLUMN compare_consent boolean NOT NULL DEFAULT false;

-- What one user is to another, from the side of `user_address`: a friendship is two rows, each with an id of its own,
-- since an id that both know would tell a third who knows whom. A row stays when what it says ends (`gone`), so that
-- ids of what was told do not change with the mood of the other side. `other` may be an address that nobody signed in with.
CREATE TABLE friends (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    other        address NOT NULL,
    state        text NOT NULL CHECK (state IN ('received', 'declined', 'friends', 'blocked', 'gone')),
    -- whether the user typed the other's address, and so may read it here
    typed        boolean NOT NULL DEFAULT false,
    -- what the other was called when they were blocked: a later name is none of the user's business
    called       text,
    changed_at   timestamptz NOT NULL,
    notified_at  timestamptz,
    UNIQUE (user_address, other),
    CHECK (user_address <> other)
);
CREATE INDEX friends_listed ON friends (user_address, state, changed_at DESC, id DESC);
CREATE INDEX friends_other ON friends (other) WHERE state = 'friends';

-- What a user typed: the same row whether the address has an account, ignores the request or has blocked the user.
-- A row stays when it is closed, so that asking and withdrawing counts against the day's limit.
CREATE TABLE friend_requests (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    address      address NOT NULL,
    is_open      boolean NOT NULL,
    asked_at     timestamptz NOT NULL,
    UNIQUE (user_address, address),
    CHECK (user_address <> address)
);
CREATE INDEX friend_requests_listed ON friend_requests (user_address, asked_at DESC, id DESC);

-- Links to become friends by; only the SHA-256 of the token is kept.
CREATE TABLE friend_invitations (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    token_hash   bytea NOT NULL UNIQUE,
    uses_left    integer NOT NULL CHECK (uses_left >= 0),
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL
);
CREATE INDEX friend_invitations_listed ON friend_invitations (user_address, created_at DESC, id DESC);

-- An avatar is a picture like that of a category, without one: category_id null.
ALTER TABLE category_images DROP CONSTRAINT category_images_pkey;
ALTER TABLE category_images ALTER COLUMN category_id DROP NOT NULL;
ALTER TABLE category_images ADD CONSTRAINT category_images_subject UNIQUE NULLS NOT DISTINCT (user_address, category_id);

-- Whom a user was compared with in a month, and what was released of them: written once, then only read. `members` is
-- what later cohorts are held against, so that no two answers differ by a few people.
CREATE TABLE comparison_cohorts (
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    month        date NOT NULL,
    members      text[] NOT NULL,
    released_at  timestamptz NOT NULL,
    PRIMARY KEY (user_address, month)
);
CREATE TABLE comparison_releases (
    user_address address NOT NULL,
    month        date NOT NULL,
    category_id  uuid NOT NULL REFERENCES categories (id) ON DELETE CASCADE,
    cohort_band  smallint NOT NULL,
    PRIMARY KEY (user_address, month, category_id),
    FOREIGN KEY (user_address, month) REFERENCES comparison_cohorts (user_address, month) ON DELETE CASCADE
);
