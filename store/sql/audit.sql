-- record --
INSERT INTO audit_logs (user_id, action, metadata, ip_address, user_agent, timestamp) VALUES ($1, $2, $3, $4, $5, $6)

-- audit_of --
-- Newest first; $2 is the last id that the reader has.
SELECT id, action, metadata, ip_address, user_agent, timestamp FROM audit_logs
WHERE user_id = $1 AND ($2::bigint IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3
