"""The outer loop: tasks from a generator, episodes from a simulator, a meta-update, again.

One training:

- :mod:`~innerloop_server.training.outer_loop`: one meta-update as a function of values; the bytes of a checkpoint.
- :mod:`~innerloop_server.training.collect`, :mod:`~innerloop_server.training.actor_collect`: where its episodes come
  from.
- :mod:`~innerloop_server.training.student`: who plays and learns: :mod:`~innerloop_server.training.meta_student`
  (methods with a meta-gradient), :mod:`~innerloop_server.training.reptile_student`,
  :mod:`~innerloop_server.training.scratch_student` (which only looks on),
  :mod:`~innerloop_server.training.pearl_student` (from a :mod:`~innerloop_server.training.replay`),
  :mod:`~innerloop_server.training.meta_dqn_student` (from a :mod:`~innerloop_server.training.trial_replay`),
  :mod:`~innerloop_server.training.trial_student` (RL2, on whole trials from
  :mod:`~innerloop_server.training.trial_collect`), :mod:`~innerloop_server.training.ppo_student` (PPO that does not
  adapt, told or not). :mod:`~innerloop_server.training.students` says who fits a method.
- :mod:`~innerloop_server.training.generators`: what proposes tasks, by name. Those with networks are here,
  :mod:`~innerloop_server.training.goal_gan_generator` and :mod:`~innerloop_server.training.adversary_generator`, and
  the loop around the latter, :mod:`~innerloop_server.training.paired`; their networks lie
  :mod:`~innerloop_server.training.packed` in a state. :mod:`~innerloop_server.training.proposals` reads one from a
  checkpoint.
- :mod:`~innerloop_server.training.optimiser`: Adam as a value; :mod:`~innerloop_server.training.outer_trpo`: the
  natural-gradient step in its place.
- :mod:`~innerloop_server.training.specs`: binding a method to a family; the settings lie in ``configs/``.
- :mod:`~innerloop_server.training.trainer`: the process that runs it, in a folder that
  :mod:`~innerloop_server.training.run`, :mod:`~innerloop_server.training.checkpoints`,
  :mod:`~innerloop_server.training.metrics`, :mod:`~innerloop_server.training.curves` and
  :mod:`~innerloop_server.training.candidates` describe.
- :mod:`~innerloop_server.training.offline`: the same without a server.

All trainings of a server, in its event loop and without torch:

- :mod:`~innerloop_server.training.requests`: from what is asked for to what a run is.
- :mod:`~innerloop_server.training.supervisor`: started, paused, followed, restarted; with
  :mod:`~innerloop_server.training.intake`, :mod:`~innerloop_server.training.process`,
  :mod:`~innerloop_server.training.messages` and :mod:`~innerloop_server.training.bells`.
- :mod:`~innerloop_server.training.adoption`, :mod:`~innerloop_server.training.promotion`: from a candidate to a
  champion.
- :mod:`~innerloop_server.training.zoo`: learners that are shipped.

And the bounds that learners are read against: :mod:`~innerloop_server.training.references`.
"""
