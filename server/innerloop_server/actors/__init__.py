"""Where environments live: supervised processes that run whole episodes and answer with trajectories.

One :class:`~innerloop_server.actors.pool.ActorPool` per owner (the engine, or the trainer). Nothing here imports
torch, grpc or a database: an actor is numpy, Gymnasium and the portable policy.
"""
