"""Pure decisions: time, prices and facts are arguments; nothing here awaits."""
