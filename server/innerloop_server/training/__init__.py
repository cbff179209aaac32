"""The outer loop: tasks from a generator, episodes from a simulator, a meta-update, again.

- :mod:`~innerloop_server.training.outer_loop`: one meta-update as a function of values; checkpoints.
- :mod:`~innerloop_server.training.collect`: where its episodes come from.
- :mod:`~innerloop_server.training.optimiser`: Adam as a value.
- :mod:`~innerloop_server.training.specs`: binding a method to a family; the settings lie in ``configs/``.
"""
