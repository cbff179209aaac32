"""Task families, where they are registered, and what draws tasks from them.

- :mod:`~innerloop_server.tasks.family`: what a family is, and the two faces of its environment.
- :mod:`~innerloop_server.tasks.families`: the shipped ones; each is one file, and one more for its tensors.
- :mod:`~innerloop_server.tasks.registry`: which families there are: ours, third parties', clients'.
- :mod:`~innerloop_server.tasks.options`: what can be chosen about a family, and its name then.
- :mod:`~innerloop_server.tasks.gymnasium_family`: any Gymnasium environment as a family.
- :mod:`~innerloop_server.tasks.defined`: families that clients defined over the wire.
- :mod:`~innerloop_server.tasks.sampling`: (seed, split, index) -> task, name -> task.
- :mod:`~innerloop_server.tasks.generators`: which tasks a training is given.
- :mod:`~innerloop_server.tasks.gymnasium`: ``gymnasium.make("innerloop/...")``.

Tasks know no learner and no transport. torch loads only when a family's ``batch`` is called.
"""
