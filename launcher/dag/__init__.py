"""Recipes: from a bare machine to a result, as steps that need each other.

``schema`` is the YAML form, ``resolve`` turns it into the graph that the runner
executes (:mod:`launcher.core.dag`), ``lint`` finds what would go wrong before anything
runs; ``places`` and ``run`` bring the runner to a machine and watch it from here.
"""
