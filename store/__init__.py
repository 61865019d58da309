"""The only SQL, Redis commands, ClickHouse and JSON-RPC."""
