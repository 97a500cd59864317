"""Standard-library statements that travel with data, checkpoints and results."""
