-- rows --
-- Those who left, too: their last change has to be known, so that no older one brings them back.
SELECT participant_id, CASE WHEN left_at IS NULL THEN score END, score_change FROM challenge_participants
WHERE challenge_id = $1 AND participant_id > $2 ORDER BY participant_id LIMIT $3

-- rows_of --
SELECT participant_id, CASE WHEN left_at IS NULL THEN score END, score_change FROM challenge_participants
WHERE challenge_id = $1 AND participant_id = ANY ($2::uuid[])

-- recipients --
SELECT participant_id, user_address FROM challenge_participants
WHERE challenge_id = $1 AND participant_id = ANY ($2::uuid[]) AND left_at IS NULL

-- own --
SELECT challenge_id, score, participant_id FROM challenge_participants
WHERE user_address = $1 AND challenge_id = ANY ($2::uuid[]) AND left_at IS NULL

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

-- final_page --
-- Of a settled challenge: nothing of it changes any more.
SELECT participant_id, final_score, final_rank FROM challenge_participants
WHERE challenge_id = $1 AND final_score IS NOT NULL AND (final_score, participant_id) < ($2, $3)
ORDER BY final_score DESC, participant_id DESC LIMIT $4

-- final_above --
SELECT participant_id, final_score, final_rank FROM challenge_participants
WHERE challenge_id = $1 AND final_score IS NOT NULL AND (final_score, participant_id) > ($2, $3)
ORDER BY final_score, participant_id LIMIT $4

-- people --
-- Where either of the one who looks and the other has blocked the other, neither name nor picture is shown.
SELECT p.participant_id, p.user_address = $3,
    CASE WHEN NOT b.is_between THEN u.display_name END, CASE WHEN NOT b.is_between THEN u.avatar_url END
FROM challenge_participants AS p
JOIN users AS u ON u.address = p.user_address
CROSS JOIN LATERAL (SELECT EXISTS (
    SELECT FROM friends AS f WHERE f.state = 'blocked'
        AND ((f.user_address = $3 AND f.other = p.user_address) OR (f.user_address = p.user_address AND f.other = $3))
) AS is_between) AS b
WHERE p.challenge_id = $1 AND p.participant_id = ANY ($2::uuid[]) AND p.left_at IS NULL

-- running --
-- Those whose scores may still change; of others the final ranks are rows.
SELECT id FROM challenges WHERE closed_at IS NULL AND settled_at IS NULL AND cancelled_at IS NULL ORDER BY ends_at, id
