"""A real multi-node Slurm on one machine, for tests and for trying the launcher out."""
