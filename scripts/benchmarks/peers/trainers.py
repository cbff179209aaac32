"""Whole training updates of other people's learners, on request: runs in the peers' own virtual environment.

One JSON object a line on standard input, ``{"peer": "learn2learn", "tasks": 40}``, ``{"peer": "sb3-contrib"}`` or the
same "as it comes"; one a line on standard output: seconds of wall time and of processor time (workers included), and
environment steps taken, or ``{"error": ...}``. What is asked for first is built and warmed up first.
"""

# mypy: disable-error-code="import-not-found"
# None of what it imports is installed where the types are checked.

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

HIDDEN = 64
# MAML-TRPO on the point robot.
EPISODES = 20
WORKERS = 10
"""Of learn2learn's example."""
ADAPT_RATE = 0.1
DISCOUNT = 0.99
MAX_KL = 0.01
SHORTER = 0.5
"""From one candidate of the line search to the next, as in learn2learn's example."""
CANDIDATES = 15
# Recurrent PPO on the bandit.
ARMS = 10
PULLS = 100
TRIALS = 64
EPOCHS = 4
MINIBATCHES = 4


class Clock:
    """Wall and processor seconds since it was made; those of living child processes count."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()

    def read(self) -> tuple[float, float]:
        """(wall, processor)."""
        return time.perf_counter() - self._wall, _cpu_seconds() - self._cpu


def _cpu_seconds() -> float:
    """Of this process and its living children; of the latter the kernel counts in hundredths."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


# -- learn2learn ------------------------------------------------------------------------------------------------------


class PointMaml:
    """MAML-TRPO on ``Particles2D-v1``: the steps of learn2learn's ``examples/rl/maml_trpo.py``, with its library and
    cherry's, in its own order; only sizes and discount are ours.
    """

    def __init__(self) -> None:
        import cherry
        import gym
        import learn2learn
        import torch

        def make() -> Any:
            return cherry.wrappers.ActionSpaceScaler(gym.make("Particles2D-v1"))

        torch.manual_seed(0)
        workers = learn2learn.gym.AsyncVectorEnv([make for _ in range(WORKERS)])
        workers.set_task(workers.sample_tasks(1)[0])
        self._env = cherry.wrappers.Torch(workers)
        self._policy = diagonal_policy(self._env.state_size, self._env.action_size)
        self._baseline = cherry.models.robotics.LinearValue(self._env.state_size)

    def iteration(self, tasks: int) -> dict[str, Any]:
        """Episodes of ``tasks`` tasks before and after one inner step, then one TRPO step of the initial weights."""
        import cherry

        clock = Clock()
        collecting = [0.0, 0.0]
        replays: list[tuple[Any, Any]] = []
        adapted: list[Any] = []

        def episodes(runner: Any, policy: Any) -> Any:
            began = Clock()
            replay = runner.run(policy, episodes=EPISODES)
            for i, seconds in enumerate(began.read()):
                collecting[i] += seconds
            return replay

        for task in self._env.sample_tasks(tasks):
            policy = deepcopy(self._policy)
            self._env.set_task(task)
            self._env.reset()
            runner = cherry.wrappers.Runner(self._env)
            before = episodes(runner, policy)
            policy = self._adapt(policy, before, create_graph=False)
            replays.append((before, episodes(runner, policy)))
            adapted.append(policy)
        candidates = self._step(replays, adapted)
        wall, cpu = clock.read()
        return {
            "wall": wall,
            "cpu": cpu,
            "collect_wall": collecting[0],
            "collect_cpu": collecting[1],
            "env_steps": sum(len(replay) for pair in replays for replay in pair),
            "candidates": candidates,
        }

    def _step(self, replays: Sequence[tuple[Any, Any]], adapted: Sequence[Any]) -> int:
        """The outer step; how many candidates the line search looked at."""
        import torch
        from cherry.algorithms import trpo
        from torch.nn.utils import parameters_to_vector, vector_to_parameters

        parameters = list(self._policy.parameters())
        loss, kl = self._judge(replays, adapted, self._policy)
        gradient = parameters_to_vector(torch.autograd.grad(loss, parameters, retain_graph=True)).detach()
        product = trpo.hessian_vector_product(kl, parameters)
        direction = trpo.conjugate_gradient(product, gradient)
        direction = direction / torch.sqrt(0.5 * torch.dot(direction, product(direction)) / MAX_KL)
        start, old_loss = parameters_to_vector(parameters).detach(), loss.item()
        del loss, kl, product
        for candidate in range(CANDIDATES):
            moved = deepcopy(self._policy)
            vector_to_parameters(start - SHORTER**candidate * direction, moved.parameters())
            loss, kl = self._judge(replays, adapted, moved)
            if loss.item() < old_loss and kl.item() < MAX_KL:
                self._policy = moved
                return candidate + 1
        return CANDIDATES

    def _judge(self, replays: Sequence[tuple[Any, Any]], adapted: Sequence[Any], policy: Any) -> tuple[Any, Any]:
        """Mean surrogate loss of the policies that ``policy`` adapts to, and mean KL from those that sampled."""
        import cherry
        import learn2learn
        from cherry.algorithms import trpo
        from torch.distributions.kl import kl_divergence

        losses, kls = [], []
        for (before, after), old in zip(replays, adapted, strict=True):
            new = self._adapt(learn2learn.clone_module(policy), before, create_graph=True)
            states, actions = after.state(), after.action()
            old_density, new_density = old.density(states), new.density(states)
            kls.append(kl_divergence(new_density, old_density).mean())
            advantages = cherry.normalize(self._advantages(after)).detach()
            old_log_prob = old_density.log_prob(actions).sum(1, keepdim=True).detach()
            new_log_prob = new_density.log_prob(actions).sum(1, keepdim=True)
            losses.append(trpo.policy_loss(new_log_prob, old_log_prob, advantages))
        return sum(losses) / len(losses), sum(kls) / len(kls)

    def _adapt(self, policy: Any, replay: Any, *, create_graph: bool) -> Any:
        import cherry
        import learn2learn
        import torch
        from cherry.algorithms import a2c

        log_prob = policy.density(replay.state()).log_prob(replay.action()).sum(1, keepdim=True)
        loss = a2c.policy_loss(log_prob, cherry.normalize(self._advantages(replay)).detach())
        gradients = torch.autograd.grad(
            loss, list(policy.parameters()), retain_graph=create_graph, create_graph=create_graph
        )
        return learn2learn.algorithms.maml.maml_update(policy, ADAPT_RATE, gradients)

    def _advantages(self, replay: Any) -> Any:
        import cherry
        import torch

        rewards, dones, states = replay.reward(), replay.done(), replay.state()
        self._baseline.fit(states, cherry.td.discount(DISCOUNT, rewards, dones))
        values, next_values = self._baseline(states), self._baseline(replay.next_state())
        return cherry.pg.generalized_advantage(
            tau=1.0,
            gamma=DISCOUNT,
            rewards=rewards,
            dones=dones,
            values=values * (1.0 - dones) + next_values * dones,
            next_value=torch.zeros(1),
        )


def diagonal_policy(inputs: int, outputs: int) -> Any:
    """Two tanh layers and a learned deviation: the policy of learn2learn's examples in our sizes."""
    import torch
    from torch import nn

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh()]
            self.mean = nn.Sequential(*layers, nn.Linear(HIDDEN, outputs))
            self.sigma = nn.Parameter(torch.zeros(outputs))

        def density(self, state: Any) -> Any:
            return torch.distributions.Normal(self.mean(state), torch.exp(self.sigma.clamp(min=math.log(1e-6))))

        def forward(self, state: Any) -> Any:
            return self.density(state).sample()

    return Policy()


# -- sb3-contrib ------------------------------------------------------------------------------------------------------


class BanditPpo:
    """``RecurrentPPO`` on bandits that show what RL2 reads: the last arm, what it gave, whether the trial is new.

    With our minibatches and one memory for policy and value; or as it comes, with its own: 128 steps of a minibatch, a
    memory each.
    """

    def __init__(self, *, as_it_comes: bool) -> None:
        import torch
        from sb3_contrib import RecurrentPPO
        from stable_baselines3.common.vec_env import DummyVecEnv

        torch.manual_seed(0)
        ours: dict[str, Any] = {"batch_size": TRIALS * PULLS // MINIBATCHES}
        memory = {"shared_lstm": True, "enable_critic_lstm": False}
        self._learner = RecurrentPPO(
            "MlpLstmPolicy",
            DummyVecEnv([functools.partial(bandit, seed) for seed in range(TRIALS)]),
            learning_rate=3e-3,
            n_steps=PULLS,
            **({} if as_it_comes else ours),
            n_epochs=EPOCHS,
            gamma=DISCOUNT,
            gae_lambda=0.9,
            ent_coef=0.01,
            policy_kwargs={
                "lstm_hidden_size": HIDDEN,
                **({} if as_it_comes else memory),
                "net_arch": {"pi": [HIDDEN], "vf": [HIDDEN]},
            },
            device="cpu",
        )
        self._steps = 0

    def update(self) -> dict[str, Any]:
        """One trial of each environment, then all epochs on them."""
        clock = Clock()
        self._steps += TRIALS * PULLS
        self._learner.learn(self._steps - self._learner.num_timesteps, reset_num_timesteps=False)
        wall, cpu = clock.read()
        return {"wall": wall, "cpu": cpu, "env_steps": TRIALS * PULLS}


def bandit(seed: int) -> Any:
    """Arms with uniform chances, drawn anew for each trial."""
    import gymnasium
    import numpy as np

    class Bandit(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(0, 1, (ARMS + 2,), np.float32)
        action_space = gymnasium.spaces.Discrete(ARMS)

        def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
            self._chances, self._left = draw.random(ARMS), PULLS
            observation = np.zeros(ARMS + 2, np.float32)
            observation[-1] = 1
            return observation, {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            reward = float(draw.random() < self._chances[action])
            self._left -= 1
            observation = np.zeros(ARMS + 2, np.float32)
            observation[action], observation[-2] = 1, reward
            return observation, reward, self._left == 0, False, {}

    draw = np.random.default_rng(seed)
    return Bandit()


@functools.cache
def learner(peer: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What answers for a peer, warm."""
    if peer == "learn2learn":
        maml = PointMaml()
        maml.iteration(1)
        return lambda asked: maml.iteration(asked["tasks"])
    ppo = BanditPpo(as_it_comes=peer == "sb3-contrib as it comes")
    ppo.update()
    return lambda _: ppo.update()


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print is no answer
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = learner(asked["peer"])(asked)
        except Exception as error:  # whatever a peer raises is a line of the table
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    for child in multiprocessing.active_children():  # the workers of an AsyncVectorEnv wait for ever
        child.terminate()


if __name__ == "__main__":
    main()
