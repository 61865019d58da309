-- rows --
-- Those who left, too: their last change has to be known, so that no older one brings them back.
SELECT participant_id, CASE WHEN left_at IS NULL THEN score END, score_change FROM challenge_participants
WHERE challenge_id = $1 AND participant_id > $2 ORDER BY participant_id LIMIT $3

-- rows_of --
SELECT participant_id, CASE WHEN left_at IS NULL THEN score END, score_change FROM challenge_participants
WHERE challenge_id = $1 AND participant_id = ANY ($2::uuid[])

-- recipients --
SELECT p.participant_id, p.user_address, c.measure
FROM challenge_participants AS p JOIN challenges AS c ON c.id = p.challenge_id
WHERE p.challenge_id = $1 AND p.participant_id = ANY ($2::uuid[]) AND p.left_at IS NULL

-- own --
SELECT participant_id, score FROM challenge_participants
WHERE challenge_id = $1 AND user_address = $2 AND left_at IS NULL

-- counts --
SELECT count(*), count(*) FILTER (WHERE score > $2) FROM challenge_participants
WHERE challenge_id = $1 AND left_at IS NULL AND (score, participant_id) > ($2, $3)

-- page --
-- After a place, which need not be anybody's any more.
SELECT participant_id, score FROM challenge_participants
WHERE challenge_id = $1 AND left_at IS NULL AND (score, participant_id) < ($2, $3)
ORDER BY score DESC, participant_id DESC LIMIT $4

-- above --
SELECT participant_id, score FROM challenge_participants
WHERE challenge_id = $1 AND left_at IS NULL AND (score, participant_id) > ($2, $3)
ORDER BY score, participant_id LIMIT $4

-- people --
-- Whoever blocked the one who looks has neither name nor picture for them.
SELECT p.participant_id, p.user_address = $3,
    CASE WHEN b.user_address IS NULL THEN u.display_name END, CASE WHEN b.user_address IS NULL THEN u.avatar_url END
FROM challenge_participants AS p
LEFT JOIN users AS u ON u.address = p.user_address
LEFT JOIN friends AS b ON b.user_address = p.user_address AND b.other = $3 AND b.state = 'blocked'
WHERE p.challenge_id = $1 AND p.participant_id = ANY ($2::uuid[])

-- running --
-- Those whose scores may still change; of others the final ranks are rows.
SELECT id FROM challenges WHERE closed_at IS NULL AND settled_at IS NULL AND cancelled_at IS NULL ORDER BY ends_at, id
