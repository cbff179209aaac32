import torch

from innerloop_server.domain import Experience
from innerloop_server.learners.transitions import transitions_of

HORIZON = 3


def episodes(lengths: list[int], cut: list[bool]) -> Experience[torch.Tensor]:
    """[1, N, 3] episodes whose observations count 10, 11, 12 in the first, 20, 21, 22 in the second, ..."""
    n = len(lengths)
    observations = (10.0 * torch.arange(1, n + 1)[:, None] + torch.arange(HORIZON))[None, ..., None]
    return Experience(
        observations=observations,
        actions=torch.zeros(1, n, HORIZON, dtype=torch.int64),
        rewards=torch.ones(1, n, HORIZON),
        log_probs=torch.zeros(1, n, HORIZON),
        lengths=torch.tensor([lengths]),
        bootstrap=torch.tensor([cut]),
        final_observations=torch.where(torch.tensor([cut])[..., None], 99.0, 0.0),
        time_offset=torch.zeros(1, n, dtype=torch.int64),
        feedback=torch.zeros(1, n, HORIZON, 0),
        success=torch.zeros(1, n, dtype=torch.bool),
    )


def test_what_comes_next_and_what_ends() -> None:
    # Ran to the horizon; ended by itself after two steps; was cut after two and goes on; is padding.
    steps = transitions_of(episodes([3, 2, 2, 0], [False, False, True, False]), HORIZON)
    real = [[1, 1, 1], [1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert steps.real.reshape(4, 3).int().tolist() == real
    # The step that the clock cut is no end, and what came after it was not seen.
    assert steps.seen.reshape(4, 3).int().tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert steps.terminated.reshape(4, 3).int().tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert steps.valued.reshape(4, 3).int().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 0], [0, 0, 0]]
    following = steps.next_observations.reshape(4, 3)
    assert following[0].tolist() == [11, 12, 12]
    assert following[1, :2].tolist() == [21, 21]
    assert following[2, :2].tolist() == [31, 99]


def test_a_late_segment_ends_where_its_episode_does() -> None:
    late = episodes([2], [False])
    late.time_offset[:] = 1
    assert not transitions_of(late, HORIZON).terminated.any()


def test_take_and_precision() -> None:
    steps = transitions_of(episodes([3, 2], [False, False]), HORIZON)
    taken = steps.take(torch.tensor([[4, 0]])).to(torch.float64)
    assert taken.observations.tolist() == [[[21.0], [10.0]]]
    assert taken.terminated.tolist() == [[True, False]]
    assert taken.rewards.dtype == torch.float64
    assert taken.actions.dtype == torch.int64
