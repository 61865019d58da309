"""Later, with retries: persistence and schedules in arq."""
