-- Challenges and who takes part in them. Before deploy: additive; nothing reads it yet.

-- State follows from the times: upcoming, running, ended, settled, or cancelled. `ends_at` is exclusive, by block time.
CREATE TABLE challenges (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- null once their account is gone: a challenge belongs to those who take part
    creator      address REFERENCES users (address) ON DELETE SET NULL,
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    description  text NOT NULL DEFAULT '' CHECK (length(description) <= 500),
    measure      text NOT NULL CHECK (measure IN ('savings_progress', 'budget_kept', 'no_spend_days')),
    visibility   text NOT NULL CHECK (visibility IN ('private', 'public')),
    -- dollars to set aside
    target       numeric(20, 2) CHECK (target > 0),
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL,
    -- those who take part now; kept under the row's lock, so that a limit holds and nobody counts 100,000 rows
    participants integer NOT NULL DEFAULT 0,
    cancelled_at timestamptz,
    -- everybody was told that it ended
    ended_at     timestamptz,
    -- scores are taken for good, participant by participant, from this moment
    settling_at  timestamptz,
    -- everybody has a final rank
    settled_at   timestamptz,
    -- everybody was told of what became of it: nothing is left to do
    closed_at    timestamptz,
    revision     bigint NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CHECK (starts_at < ends_at),
    CHECK ((measure = 'savings_progress') = (target IS NOT NULL))
);
CREATE INDEX challenges_open ON challenges (ends_at) WHERE closed_at IS NULL;
CREATE INDEX challenges_public ON challenges (created_at DESC, id DESC)
    WHERE visibility = 'public' AND cancelled_at IS NULL AND closed_at IS NULL;
CREATE INDEX challenges_creator ON challenges (creator, created_at DESC, id DESC);

-- `participant_id` is what others may know of a participant. What is measured with is frozen at the first joining: the
-- zone, the budget in dollars a month, the buckets that keep a goal. Who left and comes again is who they were.
CREATE TABLE challenge_participants (
    challenge_id   uuid NOT NULL REFERENCES challenges (id) ON DELETE CASCADE,
    user_address   address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    participant_id uuid NOT NULL DEFAULT gen_random_uuid(),
    joined_at      timestamptz NOT NULL DEFAULT now(),
    left_at        timestamptz,
    time_zone      text NOT NULL DEFAULT 'UTC',
    monthly_budget numeric(20, 2),
    buckets        text[] NOT NULL DEFAULT '{}',
    -- basis points (10000 is all) or days: exact, below 2^53; more is better
    score          bigint NOT NULL DEFAULT 0 CHECK (abs(score) < 9007199254740992),
    -- grows with every change of score, and with every joining and leaving
    score_change   bigint NOT NULL DEFAULT 1,
    -- dollars set aside, or spent; null where days are counted
    amount         numeric,
    -- amounts without a price, which no score counts
    unpriced       integer NOT NULL DEFAULT 0,
    measured_at    timestamptz,
    -- when the clock alone changes the score next; null: never
    due_at         timestamptz,
    final_score    bigint,
    final_rank     integer,
    -- the last state that was told to all: 1 ended, 2 settled or cancelled
    told           smallint NOT NULL DEFAULT 0,
    PRIMARY KEY (challenge_id, user_address),
    UNIQUE (challenge_id, participant_id)
) WITH (fillfactor = 80);
CREATE INDEX challenge_participants_user ON challenge_participants (user_address, challenge_id) WHERE left_at IS NULL;
CREATE INDEX challenge_participants_ranks ON challenge_participants (challenge_id, score DESC, participant_id DESC)
    WHERE left_at IS NULL;
CREATE INDEX challenge_participants_due ON challenge_participants (due_at) WHERE due_at IS NOT NULL AND left_at IS NULL;
CREATE INDEX challenge_participants_final
    ON challenge_participants (challenge_id, final_score DESC, participant_id DESC) WHERE final_score IS NOT NULL;

-- Friends who were invited: it holds as long as both are friends.
CREATE TABLE challenge_invites (
    challenge_id uuid NOT NULL REFERENCES challenges (id) ON DELETE CASCADE,
    user_address address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    inviter      address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    invited_at   timestamptz NOT NULL,
    declined_at  timestamptz,
    PRIMARY KEY (challenge_id, user_address)
);
CREATE INDEX challenge_invites_user ON challenge_invites (user_address, invited_at DESC, challenge_id DESC);
CREATE INDEX challenge_invites_inviter ON challenge_invites (inviter);

-- Links to take part by; only the SHA-256 of the token is kept.
CREATE TABLE challenge_links (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    challenge_id uuid NOT NULL REFERENCES challenges (id) ON DELETE CASCADE,
    inviter      address NOT NULL REFERENCES users (address) ON DELETE CASCADE,
    token_hash   bytea NOT NULL UNIQUE,
    uses_left    integer NOT NULL CHECK (uses_left >= 0),
    expires_at   timestamptz NOT NULL,
    created_at   timestamptz NOT NULL
);
CREATE INDEX challenge_links_listed ON challenge_links (challenge_id, created_at DESC, id DESC);
CREATE INDEX challenge_links_inviter ON challenge_links (inviter);
