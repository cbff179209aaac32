import numpy as np
import torch

from innerloop_server.domain import Split
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task, stack_parameters
from innerloop_server.training.batches import MergedBatch

FAMILIES = load_registry().families
CPU = torch.device("cpu")


def test_a_merged_batch_is_the_same_batch() -> None:
    family = FAMILIES["pendulum-dynamics"]
    parameters = stack_parameters([sample_task(family, 0, Split.TRAIN, index) for index in range(3)])
    plain, merged = family.batch(parameters, CPU), MergedBatch(family.batch(parameters, CPU), 3)
    rng = np.random.default_rng(0)
    uniforms = torch.from_numpy(rng.random((3, 2, 2)))
    action = torch.from_numpy(rng.uniform(-2, 2, (3, 2, 1)).astype(np.float32))
    state, observation = plain.reset(uniforms)
    one_state, one_observation = merged.reset(uniforms.reshape(1, 6, 2))
    assert torch.equal(one_observation, observation.reshape(1, 6, 3))
    expected = plain.step(state, action)
    for got, wanted in zip(merged.step(one_state, action.reshape(1, 6, 1)), expected, strict=True):
        assert torch.equal(got, wanted.reshape(1, 6, *wanted.shape[2:]))
