"""A policy behind a socket: one process asks the network for many clients.

:mod:`codec` and :mod:`openpi` are openpi's protocol, :mod:`exact` the messages of our own
evaluation; :mod:`batcher`, :mod:`desk` and :mod:`server` are the serving side,
:mod:`connection` the asking one. What a client needs imports no torch.
"""
