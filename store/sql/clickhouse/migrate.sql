-- database_exists --
SELECT count() FROM system.databases WHERE name = {database:String}

-- create_database --
CREATE DATABASE IF NOT EXISTS {database:Identifier} ENGINE = Atomic

-- create_table --
CREATE TABLE IF NOT EXISTS schema_migrations (name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = ReplacingMergeTree(applied_at) ORDER BY name

-- table_exists --
EXISTS TABLE schema_migrations

-- applied --
SELECT name, checksum FROM schema_migrations FINAL ORDER BY name

-- record --
INSERT INTO schema_migrations (name, checksum) VALUES ({name:String}, {checksum:String})
