"""RDT Launcher: takes a fine-tune from a login node to a trustworthy success-rate table."""

__version__ = "0.1.0.dev0"
