"""Others' servers and models that jobs ask: whatever answers here may be away, slow, wrong or hostile."""
