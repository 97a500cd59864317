"""Makes ``python -m docs.generate`` importable from a checkout."""
