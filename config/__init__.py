"""Facts every process agrees on: settings, chains, names, logs, metrics, embedded engines. Imports nothing of ours."""
