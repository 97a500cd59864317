"""Benchmarks: ``python -m benchmarks.NAME --json``; ``python -m benchmarks`` runs all."""
