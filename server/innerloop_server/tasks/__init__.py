"""Task families, where they are registered, and what draws tasks from them.

- :mod:`~innerloop_server.tasks.family`: what a family is, and the two faces of its environment.
- :mod:`~innerloop_server.tasks.families`: the shipped ones; each is one file, and one more for its tensors.
- :mod:`~innerloop_server.tasks.registry`: which families are installed, ours and third parties'.
- :mod:`~innerloop_server.tasks.sampling`: (seed, split, index) -> task, name -> task.
- :mod:`~innerloop_server.tasks.generators`: which tasks a training is given.
- :mod:`~innerloop_server.tasks.gymnasium`: ``gymnasium.make("innerloop/...")``.

Tasks know no learner and no transport. torch loads only when a family's ``batch`` is called.
"""
