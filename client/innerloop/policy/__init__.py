"""The portable policy: one small file that runs anywhere numpy does.

A policy file is safetensors; its metadata entry ``innerloop`` is the JSON header (:class:`Header`).
The client runs it, the server's environment actors run the very same code on stacked weights, and the
torch networks of the learners must agree with it to 1e-5 in distribution parameters and memory.

One of the two client modules that the server's lower floors may import: numpy and safetensors, no grpc.
"""

from innerloop.policy.belief import BELIEF_LOG_VARIANCE, BELIEF_MEAN
from innerloop.policy.file import Action, Policy, load_policy, weights_hash
from innerloop.policy.header import FORMAT, Header, PolicyFormatError
from innerloop.policy.memory import (
    HIDDEN,
    LAST_ACTION,
    LAST_REWARD,
    LAST_TERMINATED,
    LAST_TRIAL_END,
    LAST_TRUNCATED,
    PREVIOUS,
    START,
    Input,
    acted,
    begin,
    checked,
    fault,
    told,
)
from innerloop.policy.networks import LOG_STD_FLOOR, forward, forward_with_memory, input_size, weight_shapes
from innerloop.policy.sampling import draw_noise, log_prob, sample, to_environment

__all__ = [
    "BELIEF_LOG_VARIANCE",
    "BELIEF_MEAN",
    "FORMAT",
    "HIDDEN",
    "LAST_ACTION",
    "LAST_REWARD",
    "LAST_TERMINATED",
    "LAST_TRIAL_END",
    "LAST_TRUNCATED",
    "LOG_STD_FLOOR",
    "PREVIOUS",
    "START",
    "Action",
    "Header",
    "Input",
    "Policy",
    "PolicyFormatError",
    "acted",
    "begin",
    "checked",
    "draw_noise",
    "fault",
    "forward",
    "forward_with_memory",
    "input_size",
    "load_policy",
    "log_prob",
    "sample",
    "to_environment",
    "told",
    "weight_shapes",
    "weights_hash",
]
