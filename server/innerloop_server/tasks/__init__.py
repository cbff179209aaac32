"""Task families, where they are registered, and what draws tasks from them.

- :mod:`~innerloop_server.tasks.family`: what a family is, and the two faces of its environment.
- :mod:`~innerloop_server.tasks.batch`: the face that steps many tasks as one batch of tensors.
- :mod:`~innerloop_server.tasks.trials`: all episodes of a task's lifetime, one after another, on either face.
- :mod:`~innerloop_server.tasks.families`: the shipped ones; each is one file, and one more for its tensors.
- :mod:`~innerloop_server.tasks.registry`: which families there are: ours, third parties', clients'.
- :mod:`~innerloop_server.tasks.options`: what can be chosen about a family, and its name then.
- :mod:`~innerloop_server.tasks.gymnasium_family`: any Gymnasium environment as a family.
- :mod:`~innerloop_server.tasks.conformed`: its observations and actions in the numbers of a policy.
- :mod:`~innerloop_server.tasks.definition`: a family that a client defined, as a value and as JSON.
- :mod:`~innerloop_server.tasks.defined`: the folder of such definitions, as every process of a server reads it.
- :mod:`~innerloop_server.tasks.probing`: a look at a client's environment, in a process of its own.
- :mod:`~innerloop_server.tasks.sampling`: (seed, split, index) -> task, name -> task.
- :mod:`~innerloop_server.tasks.generators`: which tasks a training is given.
- :mod:`~innerloop_server.tasks.gymnasium`: ``gymnasium.make("innerloop/...")``.

Tasks know no learner and no transport. torch loads only when a family's ``batch`` is called.
"""
