"""The chain speaks: heads, blocks, reorgs, decoded events, ingest."""
