"""The devnet: contracts of ours on a local anvil, simulated users who act on them, and the demo that watches one."""
