"""Checkpoints: found in every layout that is met, read safely, loaded whole, saved whole."""

from rdt.checkpoint.loading import Loaded, load
from rdt.checkpoint.opening import Checkpoint, Origin, chosen, open_checkpoint
from rdt.checkpoint.saving import save

__all__ = ["Checkpoint", "Loaded", "Origin", "chosen", "load", "open_checkpoint", "save"]
