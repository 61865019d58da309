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

-- participants --
SELECT challenge_id, user_address, participant_id, joined_at, left_at, time_zone, monthly_budget, buckets, score,
       score_change, amount, unpriced, measured_at, due_at, final_score, final_rank, told
FROM challenge_participants WHERE challenge_id = $1 AND participant_id > $2 AND left_at IS NULL
ORDER BY participant_id LIMIT $3

-- participation --
SELECT challenge_id, user_address, participant_id, joined_at, left_at, time_zone, monthly_budget, buckets, score,
       score_change, amount, unpriced, measured_at, due_at, final_score, final_rank, told
FROM challenge_participants WHERE challenge_id = $1 AND user_address = $2

-- scores --
-- Those who left, too: who hears of an older change later must know of that.
SELECT user_address, participant_id, CASE WHEN left_at IS NULL THEN score END, score_change
FROM challenge_participants WHERE challenge_id = $1 AND user_address = ANY ($2::text[])

-- running_of --
SELECT p.user_address, p.challenge_id
FROM challenge_participants AS p JOIN challenges AS c ON c.id = p.challenge_id
WHERE p.user_address = ANY ($1::text[]) AND p.left_at IS NULL AND c.settling_at IS NULL AND c.cancelled_at IS NULL
ORDER BY p.user_address, p.challenge_id
