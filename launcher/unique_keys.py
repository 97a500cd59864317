"""YAML in which a key stands once in its mapping, as YAML wants it.

PyYAML keeps the last of two equal keys and says nothing: a section would be lost.
"""

from __future__ import annotations

from typing import Any

import yaml

MERGE = "tag:yaml.org,2002:merge"


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader that refuses a repeated key; ``<<`` may repeat, and be overridden.

    Looked at before keys are merged: afterwards an overridden key stands there twice, too.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Raises yaml.MarkedYAMLError at the second of two equal keys."""
        node = super().compose_mapping_node(anchor)
        seen: dict[tuple[str, str], yaml.ScalarNode] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            first = seen.setdefault((key.tag, key.value), key)
            if first is not key:
                line = first.start_mark.line + 1
                said = f"key {key.value} stands in line {line} too; one of them would be lost"
                raise yaml.MarkedYAMLError(problem=said, problem_mark=key.start_mark)
        return node
