-- create_table --
CREATE TABLE IF NOT EXISTS schema_migrations (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- table_exists --
SELECT to_regclass('schema_migrations') IS NOT NULL

-- lock --
-- Held by the connection, not by a transaction: it spans both stores, and dies with the process that holds it.
SELECT pg_advisory_lock($1)

-- applied --
SELECT name, checksum FROM schema_migrations ORDER BY name

-- record --
INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)
