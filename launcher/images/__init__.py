"""Container images: definitions, rendering, building, the store of what was built."""
