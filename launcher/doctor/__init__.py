"""``rdtl doctor``: what can silently go wrong with a run, looked at before it starts."""
