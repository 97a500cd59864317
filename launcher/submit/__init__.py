"""How stages become processes: here, or as jobs of a scheduler."""
