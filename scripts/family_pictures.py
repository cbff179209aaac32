"""Pictures of task families, drawn by running them: how tasks of one family differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Arc, Circle, Rectangle

from innerloop.arrays import Array, Discrete
from innerloop_server.domain import Split, Task
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import sample_task

TASKS = 3
"""Tasks shown side by side."""
TRACED = 3
"""Numbers of an observation that are traced."""
DPI = 90

Drawer = Callable[[Family, Task, Axes], None]


def draw(family: Family, path: Path) -> None:
    """A picture of the first test tasks of a family.

    Raises:
        PreconditionFailed: the family lacks its extra.
    """
    figure, axes = plt.subplots(1, TASKS, figsize=(9, 3), layout="constrained", squeeze=False)
    drawer = DRAWERS.get(family.name, traces)
    for index, ax in enumerate(axes[0]):
        task = sample_task(family, 0, Split.TEST, index)
        drawer(family, task, ax)
        ax.set_title(caption(task), fontsize=8)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


def caption(task: Task) -> str:
    """The hidden parameters, those that are short."""
    shown = [
        f"{name} {np.array2string(np.asarray(value), precision=2, separator=', ')}"
        for name, value in task.parameters.items()
        if np.size(value) <= 3 or (len(task.parameters) == 1 and np.size(value) <= 5)
    ]
    return "\n".join(", ".join(shown[i : i + 2]) for i in range(0, min(len(shown), 6), 2))


def traces(family: Family, task: Task, ax: Axes) -> None:
    """The first numbers of the observation, and the reward, under the same random actions in every task."""
    env = family.make(task)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    seen, rewards = [np.ravel(observation)[:TRACED]], []
    for _ in range(min(family.horizon, 100)):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(np.ravel(observation)[:TRACED])
        rewards.append(float(reward))
        if terminated or truncated:
            break
    env.close()
    scale = np.asarray(family.observation_scale)[:TRACED]
    for i, line in enumerate((np.stack(seen) / scale).T):
        ax.plot(line, linewidth=1, label=f"observation {i}" + (f" / {scale[i]:g}" if scale[i] != 1 else ""))
    ax.plot(np.arange(1, len(rewards) + 1), rewards, color="black", linewidth=1, linestyle=":", label="reward")
    ax.set_xlabel("step, the same random actions")
    ax.legend(fontsize=6, loc="upper left", framealpha=0.6)


def bodies(family: Family, task: Task, ax: Axes) -> None:
    """A MuJoCo model from the side, body by body, every few steps of the same random actions."""
    env: Any = family.make(task)
    env.action_space.seed(0)
    env.reset(seed=0)
    model, data = env.unwrapped.model, env.unwrapped.data
    for step in range(25):
        if step % 8 == 0:
            for body in range(2, model.nbody):
                pair = data.xpos[[model.body_parentid[body], body]]
                ax.plot(pair[:, 0], pair[:, 2], color=f"C{step // 8}", linewidth=2, marker="o", markersize=3)
        env.step(env.action_space.sample())
    ax.axhline(0, color="0.5", linewidth=1)
    ax.set(xlabel="x in m, every 8 steps", ylabel="height in m")
    ax.set_aspect("equal", adjustable="datalim")
    env.close()


def plane(family: Family, task: Task, ax: Axes) -> None:
    """Random walks in the plane, and the goal."""
    for episode in range(8):
        env = family.make(task)
        env.action_space.seed(episode)
        observation, _ = env.reset(seed=episode)
        way, done = [np.asarray(observation)[:2]], False
        while not done:
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
            way.append(np.asarray(observation)[:2])
            done = terminated or truncated
        ax.plot(*np.stack(way).T, color="tab:blue", alpha=0.5, linewidth=0.8)
    if family.name == "point-maze":
        walls(ax)
    goal = task.parameters.get("goal")
    if goal is None:
        angle = float(next(iter(task.parameters.values())))
        goal = np.array([np.cos(angle), np.sin(angle)])
        ax.add_patch(Arc((0, 0), 2, 2, theta2=180, color="0.6", linestyle=":"))
        ax.add_patch(Circle(tuple(goal), 0.2, color="tab:red", alpha=0.2))
        ax.set(xlim=(-1.3, 1.3), ylim=(-0.5, 1.3))
    ax.plot(*goal, marker="*", color="tab:red", markersize=14, markeredgecolor="black")
    ax.set_aspect("equal")


def walls(ax: Axes) -> None:
    """The walls of ``point-maze``, found by asking it."""
    from innerloop_server.tasks.families.point_maze import in_wall

    side = np.linspace(-2, 2, 161)
    points = np.stack(np.meshgrid(side, side), -1)
    shut = in_wall(points.reshape(-1, 2)).reshape(len(side), len(side))
    ax.imshow(shut, extent=(-2, 2, -2, 2), origin="lower", cmap="Greys", alpha=0.6)


def arms(_: Family, task: Task, ax: Axes) -> None:
    """What each arm pays."""
    paid = np.ravel(next(iter(task.parameters.values())))
    ax.bar(np.arange(len(paid)), paid, color=["tab:red" if p == paid.max() else "0.7" for p in paid])
    ax.set(xlabel="arm", ylabel="probability of a reward", ylim=(0, 1))


def rewards(_: Family, task: Task, ax: Axes) -> None:
    """Mean rewards of a tabular MDP."""
    shown = ax.imshow(task.parameters["rewards"], cmap="viridis", vmin=-1, vmax=3)
    ax.set(xlabel="action", ylabel="state")
    ax.figure.colorbar(shown, ax=ax, label="mean reward")


def grid(_: Family, task: Task, ax: Axes) -> None:
    """A 5 x 5 grid: start, cells that may hold the goal, and the one that does."""
    from innerloop_server.tasks.families.gridnavi import GOALS

    goal = GOALS[int(task.parameters["goal"])]
    for x in range(5):
        for y in range(5):
            colour = "tab:red" if (x, y) == tuple(goal) else "0.9" if (x, y) in {tuple(g) for g in GOALS} else "white"
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="0.5"))
    ax.plot(0, 0, marker="o", color="tab:blue", markersize=12)
    ax.set(xlim=(-0.6, 4.6), ylim=(-0.6, 4.6), aspect="equal")


def curve(family: Family, task: Task, ax: Axes) -> None:
    """Examples of a regression task with one input."""
    seen, answers = examples(family, task, 100)
    order = np.argsort(seen[:, 0])
    ax.plot(seen[order, 0], answers[order, 0], marker=".", linewidth=0.8)
    ax.set(xlabel="input", ylabel="target")


def targets(family: Family, task: Task, ax: Axes) -> None:
    """Targets of a regression task against the last input."""
    seen, answers = examples(family, task, 200)
    for i in range(answers.shape[1]):
        ax.plot(seen[:, -1], answers[:, i], ".", markersize=3, label=f"target {i}")
    ax.set(xlabel="last input")
    ax.legend(fontsize=6)


def images(family: Family, task: Task, ax: Axes) -> None:
    """Examples, a row a label."""
    ways = family.action_space.n if isinstance(family.action_space, Discrete) else 1
    seen, answers = examples(family, task, 5 * ways)
    side = round(seen.shape[1] ** 0.5)
    rows = [
        np.concatenate([np.pad(x.reshape(side, side), 1) for x in seen[answers[:, 0] == label]], 1)
        for label in range(ways)
    ]
    width = min(row.shape[1] for row in rows)
    ax.imshow(np.concatenate([row[:, :width] for row in rows]), cmap="gray_r")
    ax.set(xticks=[], yticks=[], ylabel="label (rows)")


def words(_: Family, task: Task, ax: Axes) -> None:
    """Words, a column a label."""
    from innerloop_server.tasks.families.word_language import example_words

    for label, shown in enumerate(example_words(task, 8)):
        ax.text(0.05 + 0.5 * label, 0.95, "\n".join(shown), va="top", fontsize=9)
    ax.axis("off")


def screens(family: Family, task: Task, ax: Axes) -> None:
    """What the environment draws of itself."""
    env: Any = family.make(task)
    env.reset(seed=0)
    ax.imshow(env.unwrapped.get_frame())
    ax.axis("off")
    env.close()


def examples(family: Family, task: Task, n: int) -> tuple[Array, Array]:
    """Support examples of a supervised task: [n, O] and answers [n, F]."""
    env = family.make(task)
    seen, answers = [], []
    for episode in range(n):
        observation, _ = env.reset(seed=episode, options={"episode": episode, "query": False})
        seen.append(np.ravel(observation))
        answers.append(env.step(env.action_space.sample())[4]["feedback"])
    env.close()
    return np.stack(seen), np.stack(answers)


DRAWERS: Mapping[str, Drawer] = {
    **dict.fromkeys(("digits", "glyphs"), images),
    **dict.fromkeys(("halfcheetah-velocity", "halfcheetah-direction", "ant-direction", "ant-goal"), bodies),
    **dict.fromkeys(("humanoid-direction", "hopper-parameters", "walker2d-parameters"), bodies),
    "navigation-2d": plane,
    "point-robot-dense": plane,
    "point-robot-sparse": plane,
    "point-maze": plane,
    "bernoulli-bandit": arms,
    "tabular-mdp": rewards,
    "gridnavi": grid,
    "minigrid-goal": screens,
    "sinusoid": curve,
    "pendulum-model": targets,
    "word-language": words,
}
