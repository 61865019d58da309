-- is_person --
SELECT EXISTS (SELECT FROM users WHERE address = $1)

-- rows --
-- Both sides of a pair.
SELECT id, user_address, other, state, typed, called, changed_at, notified_at FROM friends
WHERE (user_address = $1 AND other = $2) OR (user_address = $2 AND other = $1)

-- own --
SELECT id, user_address, other, state, typed, called, changed_at, notified_at FROM friends
WHERE user_address = $1 AND id = $2

-- save --
INSERT INTO friends AS f (user_address, other, state, typed, called, changed_at, notified_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (user_address, other) DO UPDATE SET
    state = excluded.state, typed = excluded.typed, called = excluded.called, changed_at = excluded.changed_at,
    notified_at = coalesce(excluded.notified_at, f.notified_at)
RETURNING id, user_address, other, state, typed, called, changed_at, notified_at

-- count_friends --
SELECT count(*) FROM friends WHERE user_address = $1 AND state = 'friends'

-- listed --
-- Friends, or requests that were received, with what their people call themselves now.
SELECT f.id, f.user_address, f.other, f.state, f.typed, f.called, f.changed_at, f.notified_at,
       u.display_name, u.avatar_url
FROM friends AS f JOIN users AS u ON u.address = f.other
WHERE f.user_address = $1 AND f.state = $2 AND (f.changed_at, f.id) < ($3, $4)
ORDER BY f.changed_at DESC, f.id DESC LIMIT $5

-- blocked --
-- Nothing is read of those who are blocked: the names are those of the moment they were.
SELECT id, user_address, other, state, typed, called, changed_at, notified_at FROM friends
WHERE user_address = $1 AND state = 'blocked' AND (changed_at, id) < ($2, $3)
ORDER BY changed_at DESC, id DESC LIMIT $4

-- profile --
SELECT display_name, avatar_url FROM users WHERE address = $1

-- request --
SELECT id, user_address, address, is_open, asked_at FROM friend_requests WHERE user_address = $1 AND address = $2

-- own_request --
SELECT id, user_address, address, is_open, asked_at FROM friend_requests
WHERE user_address = $1 AND id = $2 AND is_open

-- asked_since --
-- How many others were asked since, and the oldest of those times.
SELECT count(*), min(asked_at) FROM friend_requests WHERE user_address = $1 AND address <> $2 AND asked_at > $3

-- count_requests --
SELECT count(*) FROM friend_requests WHERE user_address = $1 AND address <> $2 AND is_open

-- ask --
INSERT INTO friend_requests (user_address, address, is_open, asked_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_address, address) DO UPDATE SET is_open = excluded.is_open, asked_at = excluded.asked_at
RETURNING id, user_address, address, is_open, asked_at

-- close_request --
UPDATE friend_requests SET is_open = false WHERE user_address = $1 AND address = $2 AND is_open

-- requests --
SELECT id, user_address, address, is_open, asked_at FROM friend_requests
WHERE user_address = $1 AND is_open AND (asked_at, id) < ($2, $3) ORDER BY asked_at DESC, id DESC LIMIT $4

-- invite --
INSERT INTO friend_invitations (user_address, token_hash, uses_left, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5) RETURNING id, user_address, uses_left, expires_at, created_at

-- count_invitations --
SELECT count(*) FROM friend_invitations WHERE user_address = $1 AND uses_left > 0 AND expires_at > $2

-- invitations --
SELECT id, user_address, uses_left, expires_at, created_at FROM friend_invitations
WHERE user_address = $1 AND uses_left > 0 AND expires_at > $2 AND (created_at, id) < ($3, $4)
ORDER BY created_at DESC, id DESC LIMIT $5

-- invitation --
SELECT id, user_address, uses_left, expires_at, created_at FROM friend_invitations
WHERE token_hash = $1 AND uses_left > 0 AND expires_at > $2

-- use_invitation --
UPDATE friend_invitations SET uses_left = uses_left - 1 WHERE id = $1

-- revoke_invitation --
UPDATE friend_invitations SET uses_left = 0 WHERE user_address = $1 AND id = $2 AND uses_left > 0 AND expires_at > $3
RETURNING true
