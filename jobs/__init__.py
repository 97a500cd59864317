"""Programs that run on a node: ``python -m jobs.NAME RUN_DIR``."""
