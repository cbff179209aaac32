"""Learning methods: how a policy starts out, and how experience changes it.

- :mod:`~innerloop_server.learners.learner`: the seam every method stands behind.
- :mod:`~innerloop_server.learners.trainable`: what the outer loop asks of a method, beyond that.
- :mod:`~innerloop_server.learners.registry`: method name -> learner.
- :mod:`~innerloop_server.learners.fast_weights`: methods whose state is a policy's weights, which are
  :mod:`~innerloop_server.learners.maml` (with FOMAML, Meta-SGD, ANIL and :mod:`~innerloop_server.learners.promp` as
  settings) and :mod:`~innerloop_server.learners.reptile`.
- :mod:`~innerloop_server.learners.maml_objectives`: what their gradients follow, returns or right answers.
- :mod:`~innerloop_server.learners.rl2`: adapting by acting, with the GRU of
  :mod:`~innerloop_server.learners.recurrent`.
- :mod:`~innerloop_server.learners.meta_dqn`: the same memory, with the values of actions, which learn from
  :mod:`~innerloop_server.learners.q_targets`.
- :mod:`~innerloop_server.learners.pearl`: a belief over the task from :mod:`~innerloop_server.learners.transitions`,
  with :mod:`~innerloop_server.learners.pearl_networks` trained by :mod:`~innerloop_server.learners.sac`.
- :mod:`~innerloop_server.learners.ppo`: one policy that never adapts, told the task's parameters or not;
  :mod:`~innerloop_server.learners.scratch`: each task from nothing.
- :mod:`~innerloop_server.learners.prototype`: nearest class mean in a learned embedding.
- :mod:`~innerloop_server.learners.setting_checks`: reading a method's settings.
- :mod:`~innerloop_server.learners.natural_gradient`: the Fisher information without a matrix, for an outer TRPO.
- :mod:`~innerloop_server.learners.networks`, :mod:`~innerloop_server.learners.distributions`: policies on stacked
  weights.
- :mod:`~innerloop_server.learners.returns`, :mod:`~innerloop_server.learners.baselines`,
  :mod:`~innerloop_server.learners.objectives`, :mod:`~innerloop_server.learners.supervised`: the maths, as pure
  functions.
- :mod:`~innerloop_server.learners.goal_gan`, :mod:`~innerloop_server.learners.adversary`: the networks of teachers, on
  :mod:`~innerloop_server.learners.perceptron`.

Learners know no task family and no transport. torch lives here.
"""
