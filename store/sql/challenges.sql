-- insert --
INSERT INTO challenges (id, creator, name, description, measure, visibility, target, starts_at, ends_at, created_at,
                        updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10)
ON CONFLICT (id) DO NOTHING RETURNING id

-- one --
SELECT id, creator, name, description, measure, visibility, target, starts_at, ends_at, participants, cancelled_at,
       ended_at, settling_at, settled_at, closed_at, revision, created_at
FROM challenges WHERE id = $1

-- locked --
SELECT id, creator, name, description, measure, visibility, target, starts_at, ends_at, participants, cancelled_at,
       ended_at, settling_at, settled_at, closed_at, revision, created_at
FROM challenges WHERE id = $1 FOR UPDATE

-- of_ids --
SELECT id, creator, name, description, measure, visibility, target, starts_at, ends_at, participants, cancelled_at,
       ended_at, settling_at, settled_at, closed_at, revision, created_at
FROM challenges WHERE id = ANY ($1::uuid[])

-- describe --
UPDATE challenges SET name = $2, description = $3, revision = revision + 1, updated_at = $4 WHERE id = $1
RETURNING id, creator, name, description, measure, visibility, target, starts_at, ends_at, participants, cancelled_at,
       ended_at, settling_at, settled_at, closed_at, revision, created_at

-- mark --
-- The first time counts: whoever comes again finds it done.
UPDATE challenges SET
    cancelled_at = CASE WHEN $2 = 'cancelled' THEN coalesce(cancelled_at, $3) ELSE cancelled_at END,
    ended_at = CASE WHEN $2 = 'ended' THEN coalesce(ended_at, $3) ELSE ended_at END,
    settling_at = CASE WHEN $2 = 'settling' THEN coalesce(settling_at, $3) ELSE settling_at END,
    settled_at = CASE WHEN $2 = 'settled' THEN coalesce(settled_at, $3) ELSE settled_at END,
    closed_at = CASE WHEN $2 = 'closed' THEN coalesce(closed_at, $3) ELSE closed_at END,
    revision = revision + 1, updated_at = $3
WHERE id = $1
RETURNING id, creator, name, description, measure, visibility, target, starts_at, ends_at, participants, cancelled_at,
       ended_at, settling_at, settled_at, closed_at, revision, created_at

-- count_created --
SELECT count(*) FROM challenges WHERE creator = $1 AND closed_at IS NULL

-- count_joined --
SELECT count(*) FROM challenge_participants AS p JOIN challenges AS c ON c.id = p.challenge_id
WHERE p.user_address = $1 AND p.left_at IS NULL AND c.closed_at IS NULL

-- mine --
SELECT id, creator, name, description, measure, visibility, target, starts_at, ends_at, participants, cancelled_at,
       ended_at, settling_at, settled_at, closed_at, revision, created_at
FROM challenges
WHERE id IN (
        SELECT id FROM challenges WHERE creator = $1
        UNION SELECT challenge_id FROM challenge_participants WHERE user_address = $1 AND left_at IS NULL)
    AND (created_at, id) < ($2, $3)
ORDER BY created_at DESC, id DESC LIMIT $4

-- invited --
-- An invitation holds as long as both are friends.
SELECT c.id, c.creator, c.name, c.description, c.measure, c.visibility, c.target, c.starts_at, c.ends_at,
       c.participants, c.cancelled_at, c.ended_at, c.settling_at, c.settled_at, c.closed_at, c.revision,
       c.created_at
FROM challenge_invites AS i JOIN challenges AS c ON c.id = i.challenge_id
JOIN friends AS f ON f.user_address = i.inviter AND f.other = i.user_address AND f.state = 'friends'
WHERE i.user_address = $1 AND i.declined_at IS NULL AND c.ends_at > $2 AND c.cancelled_at IS NULL
    AND (c.created_at, c.id) < ($3, $4)
    AND NOT EXISTS (SELECT FROM challenge_participants AS p
                    WHERE p.challenge_id = c.id AND p.user_address = $1 AND p.left_at IS NULL)
ORDER BY c.created_at DESC, c.id DESC LIMIT $5

-- open_to_all --
-- Without those of someone who has blocked the user, or was blocked by them.
SELECT c.id, c.creator, c.name, c.description, c.measure, c.visibility, c.target, c.starts_at, c.ends_at,
       c.participants, c.cancelled_at, c.ended_at, c.settling_at, c.settled_at, c.closed_at, c.revision,
       c.created_at
FROM challenges AS c
WHERE c.visibility = 'public' AND c.cancelled_at IS NULL AND c.closed_at IS NULL AND c.ends_at > $2
    AND (c.created_at, c.id) < ($3, $4)
    AND NOT EXISTS (SELECT FROM challenge_participants AS p
                    WHERE p.challenge_id = c.id AND p.user_address = $1 AND p.left_at IS NULL)
    AND NOT EXISTS (SELECT FROM friends AS f WHERE f.state = 'blocked'
                    AND (f.user_address, f.other) IN ((c.creator, $1::text), ($1::text, c.creator)))
ORDER BY c.created_at DESC, c.id DESC LIMIT $5

-- is_invited --
SELECT EXISTS (
    SELECT FROM challenge_invites AS i
    JOIN friends AS f ON f.user_address = i.inviter AND f.other = i.user_address AND f.state = 'friends'
    WHERE i.challenge_id = $1 AND i.user_address = $2 AND i.declined_at IS NULL)

-- friends_of --
SELECT id, other FROM friends WHERE user_address = $1 AND id = ANY ($2::uuid[]) AND state = 'friends'

-- invite --
-- Who was invited by somebody else before, or declined, stays as they are.
INSERT INTO challenge_invites (challenge_id, user_address, inviter, invited_at)
SELECT $1, u.address, $2, $4 FROM unnest($3::text[]) AS k (address) JOIN users AS u ON u.address = k.address
ON CONFLICT (challenge_id, user_address) DO NOTHING RETURNING user_address

-- decline --
UPDATE challenge_invites SET declined_at = $3 WHERE challenge_id = $1 AND user_address = $2 AND declined_at IS NULL

-- make_link --
INSERT INTO challenge_links (challenge_id, inviter, token_hash, uses_left, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6) RETURNING id, challenge_id, inviter, uses_left, expires_at, created_at

-- links --
SELECT id, challenge_id, inviter, uses_left, expires_at, created_at FROM challenge_links
WHERE challenge_id = $1 AND uses_left > 0 AND expires_at > $2 AND (created_at, id) < ($3, $4)
ORDER BY created_at DESC, id DESC LIMIT $5

-- count_links --
SELECT count(*) FROM challenge_links WHERE challenge_id = $1 AND uses_left > 0 AND expires_at > $2

-- link --
SELECT l.id, l.challenge_id, l.inviter, l.uses_left, l.expires_at, l.created_at FROM challenge_links AS l
WHERE l.token_hash = $1 AND l.uses_left > 0 AND l.expires_at > $3
    AND NOT EXISTS (SELECT FROM friends AS f WHERE f.state = 'blocked'
                    AND (f.user_address, f.other) IN ((l.inviter, $2::text), ($2::text, l.inviter)))

-- use_link --
UPDATE challenge_links SET uses_left = uses_left - 1 WHERE id = $1 AND uses_left > 0 RETURNING true

-- revoke_link --
UPDATE challenge_links SET uses_left = 0 WHERE challenge_id = $1 AND id = $2 AND uses_left > 0 AND expires_at > $3
RETURNING true

-- frozen_of --
-- The total budget, or else the sum of those of categories; buckets that keep a goal.
SELECT u.time_zone, coalesce(u.monthly_budget, (
           SELECT sum(c.monthly_budget) FROM user_categories AS c WHERE c.user_address = u.address)),
       ARRAY(SELECT g.link_id FROM savings_goals AS g
             WHERE g.user_address = u.address AND g.is_active AND g.link_kind = 'bucket' ORDER BY g.link_id)
FROM users AS u WHERE u.address = $1

-- join --
-- Who left is who they were: neither their first joining nor what they are measured by changes.
INSERT INTO challenge_participants AS p (challenge_id, user_address, joined_at, time_zone, monthly_budget, buckets)
VALUES ($1, $2, $3, $4, $5::text::numeric, $6)
ON CONFLICT (challenge_id, user_address) DO UPDATE SET left_at = NULL, score_change = p.score_change + 1
RETURNING challenge_id, user_address, participant_id, joined_at, left_at, time_zone, monthly_budget, buckets, score,
       score_change, amount, unpriced, measured_at, due_at, final_score, final_rank, told

-- leave --
UPDATE challenge_participants SET left_at = $3, due_at = NULL, score_change = score_change + 1
WHERE challenge_id = $1 AND user_address = $2 AND left_at IS NULL
RETURNING challenge_id, user_address, participant_id, joined_at, left_at, time_zone, monthly_budget, buckets, score,
       score_change, amount, unpriced, measured_at, due_at, final_score, final_rank, told

-- count --
UPDATE challenges SET participants = participants + $2 WHERE id = $1

-- participants --
SELECT challenge_id, user_address, participant_id, joined_at, left_at, time_zone, monthly_budget, buckets, score,
       score_change, amount, unpriced, measured_at, due_at, final_score, final_rank, told
FROM challenge_participants WHERE challenge_id = $1 AND participant_id > $2 AND left_at IS NULL
ORDER BY participant_id LIMIT $3

-- parts --
SELECT p.challenge_id, p.user_address, p.participant_id, p.joined_at, p.left_at, p.time_zone, p.monthly_budget,
       p.buckets, p.score, p.score_change, p.amount, p.unpriced, p.measured_at, p.due_at, p.final_score,
       p.final_rank, p.told
FROM unnest($1::uuid[], $2::text[]) AS k (challenge_id, user_address)
JOIN challenge_participants AS p ON p.challenge_id = k.challenge_id AND p.user_address = k.user_address

-- scores --
-- Those who left, too: who hears of an older change later must know of that.
SELECT user_address, participant_id, CASE WHEN left_at IS NULL THEN score END, score_change
FROM challenge_participants WHERE challenge_id = $1 AND user_address = ANY ($2::text[])

-- running_of --
SELECT p.challenge_id, p.user_address
FROM challenge_participants AS p JOIN challenges AS c ON c.id = p.challenge_id
WHERE p.user_address = ANY ($1::text[]) AND p.left_at IS NULL AND c.settling_at IS NULL AND c.cancelled_at IS NULL
ORDER BY p.challenge_id, p.user_address

-- of_block --
SELECT DISTINCT t.user_address FROM transactions AS t
JOIN challenge_participants AS p ON p.user_address = t.user_address AND p.left_at IS NULL
WHERE t.chain_id = $1 AND t.block_hash = $2

-- request_measure --
INSERT INTO outbox (queue, job, args)
SELECT 'quick', $1, $2
WHERE EXISTS (
    SELECT FROM challenge_participants AS p JOIN challenges AS c ON c.id = p.challenge_id
    WHERE p.user_address = ANY ($3::text[]) AND p.left_at IS NULL AND c.settling_at IS NULL AND c.cancelled_at IS NULL)
ON CONFLICT (job, args) DO UPDATE SET
    created_at = greatest(clock_timestamp(), outbox.created_at + interval '1 microsecond'), enqueued_at = NULL

-- due --
SELECT p.challenge_id, p.user_address
FROM challenge_participants AS p JOIN challenges AS c ON c.id = p.challenge_id
WHERE p.due_at <= $1 AND p.left_at IS NULL AND c.settling_at IS NULL AND c.cancelled_at IS NULL
ORDER BY p.due_at LIMIT $2

-- spent --
-- What counts for budgets (store/sql/budgets.sql, figures): dollars since they joined; days from the start on.
SELECT p.challenge_id, p.user_address,
       coalesce(sum(t.usd) FILTER (WHERE t.block_time >= p.joined_at), 0) AS usd,
       count(*) FILTER (WHERE t.usd IS NULL AND t.block_time >= p.joined_at) AS unpriced,
       array_agg(DISTINCT (t.block_time AT TIME ZONE p.time_zone)::date) AS days
FROM unnest($1::uuid[], $2::text[]) AS k (challenge_id, user_address)
JOIN challenges AS c ON c.id = k.challenge_id
JOIN challenge_participants AS p ON p.challenge_id = k.challenge_id AND p.user_address = k.user_address
JOIN transactions AS t ON t.user_address = p.user_address AND t.canonical AND t.role = 'owner'
    AND t.block_time >= c.starts_at AND t.block_time < c.ends_at
LEFT JOIN transaction_categories AS a ON a.user_address = t.user_address AND a.transaction_id = t.id
WHERE t.type = 'spend'
    OR (t.type = 'transfer' AND t.direction = 'out' AND a.category_id IS NOT NULL AND t.counterparty <> t.user_address)
GROUP BY p.challenge_id, p.user_address

-- saved --
-- Per token what went into savings and what came out: vaults, locks and accounts for savings or investments, and the
-- buckets that kept a goal when somebody joined. An emergency withdrawal names no bucket: it takes what lay in these by
-- their own rows since the one before it. Prices are rounded so that what comes to a round figure is not just below it.
WITH asked AS (
    SELECT p.challenge_id, p.user_address, p.buckets, greatest(c.starts_at, p.joined_at) AS since, c.ends_at AS until
    FROM unnest($1::uuid[], $2::text[]) AS k (challenge_id, user_address)
    JOIN challenges AS c ON c.id = k.challenge_id
    JOIN challenge_participants AS p ON p.challenge_id = k.challenge_id AND p.user_address = k.user_address
), moved AS (
    SELECT k.challenge_id, k.user_address, t.chain_id, t.token, t.usd, t.amount, s.sign, t.amount AS units
    FROM asked AS k
    JOIN transactions AS t ON t.user_address = k.user_address AND t.canonical AND t.role = 'owner'
        AND t.block_time >= k.since AND t.block_time < k.until AND t.amount > 0
    CROSS JOIN LATERAL (
        SELECT CASE t.type
            WHEN 'vault_deposit' THEN 1 WHEN 'yield_lock' THEN 1
            WHEN 'vault_withdraw' THEN -1 WHEN 'yield_unlock' THEN -1
            WHEN 'bucket_funding' THEN (t.bucket_id = ANY (k.buckets))::int
            WHEN 'bucket_transfer' THEN (t.to_bucket_id = ANY (k.buckets))::int - (t.bucket_id = ANY (k.buckets))::int
            WHEN 'spend' THEN -(t.bucket_id = ANY (k.buckets))::int
            WHEN 'account_operation' THEN CASE WHEN t.account_type = 'spending' THEN 0
                ELSE (t.direction = 'in')::int - (t.direction = 'out')::int END
        END AS sign
    ) AS s
    WHERE s.sign <> 0
    UNION ALL
    SELECT k.challenge_id, k.user_address, e.chain_id, e.token, e.usd, e.amount, -1, d.units
    FROM asked AS k
    JOIN transactions AS e ON e.user_address = k.user_address AND e.canonical AND e.role = 'owner'
        AND e.type = 'emergency_withdraw' AND e.block_time >= k.since AND e.block_time < k.until AND e.amount > 0
    CROSS JOIN LATERAL (
        SELECT sum(t.amount * CASE t.type
                WHEN 'bucket_funding' THEN (t.bucket_id = ANY (k.buckets))::int
                WHEN 'bucket_transfer' THEN (t.to_bucket_id = ANY (k.buckets))::int - (t.bucket_id = ANY (k.buckets))::int
                ELSE -(t.bucket_id = ANY (k.buckets))::int END) AS units
        FROM transactions AS t
        WHERE t.user_address = e.user_address AND t.canonical AND t.role = 'owner' AND t.chain_id = e.chain_id
            AND t.wallet = e.wallet AND t.token = e.token AND t.type IN ('bucket_funding', 'bucket_transfer', 'spend')
            AND (t.block_number, t.log_index) < (e.block_number, e.log_index)
            AND NOT EXISTS (
                SELECT FROM transactions AS x
                WHERE x.user_address = e.user_address AND x.canonical AND x.role = 'owner' AND x.chain_id = e.chain_id
                    AND x.wallet = e.wallet AND x.token = e.token AND x.type = 'emergency_withdraw'
                    AND (x.block_number, x.log_index) < (e.block_number, e.log_index)
                    AND (x.block_number, x.log_index) > (t.block_number, t.log_index))
    ) AS d
    WHERE k.buckets <> '{}' AND d.units > 0
)
SELECT challenge_id, user_address,
       coalesce(sum(units) FILTER (WHERE sign > 0 AND usd IS NOT NULL), 0)::text AS ins,
       coalesce(sum(units) FILTER (WHERE sign < 0), 0)::text AS outs,
       (min(div(usd * 1e140 + amount - 1, amount)) FILTER (WHERE sign > 0))::text AS lowest,
       max(div(usd * 1e140, amount))::text AS highest,
       count(*) FILTER (WHERE sign > 0 AND usd IS NULL) AS unpriced
FROM moved GROUP BY challenge_id, user_address, chain_id, token

-- set_scores --
UPDATE challenge_participants AS p SET
    score = k.score, amount = k.amount::numeric, unpriced = k.unpriced, due_at = k.due_at, measured_at = $7,
    score_change = p.score_change + (p.score <> k.score)::int,
    final_score = CASE WHEN $8 THEN k.score END
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::int[], $6::timestamptz[])
     AS k (challenge_id, user_address, score, amount, unpriced, due_at)
WHERE p.challenge_id = k.challenge_id AND p.user_address = k.user_address AND p.left_at IS NULL
    AND p.final_score IS NULL
    AND ($8 OR (p.score, p.amount, p.unpriced, p.due_at)
             IS DISTINCT FROM (k.score, k.amount::numeric, k.unpriced, k.due_at))

-- keep_score --
UPDATE challenge_participants SET final_score = score
WHERE challenge_id = $1 AND user_address = $2 AND final_score IS NULL

-- unfinished --
SELECT id FROM challenges
WHERE closed_at IS NULL AND (ends_at <= $1 OR cancelled_at IS NOT NULL) ORDER BY ends_at, id

-- final_times --
-- The time of the newest block that is final and that the ledger has.
SELECT k.chain_id, (
    SELECT b.block_time FROM blocks AS b
    WHERE b.chain_id = c.chain_id AND b.canonical AND b.number <= c.finalized ORDER BY b.number DESC LIMIT 1)
FROM unnest($1::bigint[]) AS k (chain_id) LEFT JOIN chain_cursors AS c ON c.chain_id = k.chain_id

-- not_final --
SELECT challenge_id, user_address, participant_id, joined_at, left_at, time_zone, monthly_budget, buckets, score,
       score_change, amount, unpriced, measured_at, due_at, final_score, final_rank, told
FROM challenge_participants
WHERE challenge_id = $1 AND participant_id > $2 AND left_at IS NULL AND final_score IS NULL
ORDER BY participant_id LIMIT $3

-- give_ranks --
-- Best first, a batch at a time: equal scores share a rank, and the next one counts them all.
WITH done AS (
    SELECT count(*) AS places, min(final_score) AS score, max(final_rank) AS rank
    FROM challenge_participants WHERE challenge_id = $1 AND final_rank IS NOT NULL
), next AS (
    SELECT user_address, final_score FROM challenge_participants
    WHERE challenge_id = $1 AND final_score IS NOT NULL AND final_rank IS NULL AND left_at IS NULL
    ORDER BY final_score DESC, participant_id DESC LIMIT $2
), ranked AS (
    SELECT n.user_address, CASE WHEN n.final_score = d.score THEN d.rank
                           ELSE d.places + rank() OVER (ORDER BY n.final_score DESC) END AS rank
    FROM next AS n CROSS JOIN done AS d
), saved AS (
    UPDATE challenge_participants AS p SET final_rank = r.rank FROM ranked AS r
    WHERE p.challenge_id = $1 AND p.user_address = r.user_address RETURNING 1
)
SELECT count(*) FROM saved

-- untold --
SELECT challenge_id, user_address, participant_id, joined_at, left_at, time_zone, monthly_budget, buckets, score,
       score_change, amount, unpriced, measured_at, due_at, final_score, final_rank, told
FROM challenge_participants
WHERE challenge_id = $1 AND told < $2 AND participant_id > $3 AND left_at IS NULL
ORDER BY participant_id LIMIT $4

-- set_told --
UPDATE challenge_participants SET told = $3 WHERE challenge_id = $1 AND user_address = ANY ($2::text[]) AND told < $3

-- winners --
SELECT c.id, w.user_address, w.final_rank, w.final_score, w.display_name, w.avatar_url
FROM unnest($1::uuid[]) AS c (id)
CROSS JOIN LATERAL (
    SELECT p.user_address, p.final_rank, p.final_score, p.participant_id, u.display_name, u.avatar_url
    FROM challenge_participants AS p JOIN users AS u ON u.address = p.user_address
    WHERE p.challenge_id = c.id AND p.final_score IS NOT NULL AND p.final_rank <= $2 AND p.left_at IS NULL
    ORDER BY p.final_score DESC, p.participant_id DESC LIMIT $3
) AS w
ORDER BY c.id, w.final_score DESC, w.participant_id DESC

-- strangers --
SELECT k.u, o.o FROM unnest($1::text[]) AS k (u) CROSS JOIN unnest($2::text[]) AS o (o)
WHERE EXISTS (SELECT FROM friends AS f WHERE f.state = 'blocked'
              AND ((f.user_address = k.u AND f.other = o.o) OR (f.user_address = o.o AND f.other = k.u)))
