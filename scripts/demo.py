"""What scripts/run shows: five families adapt at once through a real server, and the policies run without it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

import innerloop
from innerloop_server.tasks.gymnasium import make_env

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STEPS = 3
TASK_SEED = 2026
NAVIGATION = "navigation-2d"


@dataclass(frozen=True)
class Shown:
    """What is shown of a family."""

    tasks: int
    """Tasks of the test split."""
    episodes_per_step: int
    remembers: bool = False
    """Its learner adapts while it plays: a step is an episode, and what was remembered shows in the next one."""


SHOWN = {
    NAVIGATION: Shown(8, 20),
    "cartpole-dynamics": Shown(4, 20),
    "pendulum-dynamics": Shown(4, 20),
    "point-robot-dense": Shown(8, 1),
    "gridnavi": Shown(8, 1, remembers=True),
}


@dataclass
class Run:
    """One adaptation."""

    family: str
    task: innerloop.Task
    steps: list[innerloop.Step] = field(default_factory=list)
    start: innerloop.Policy | None = None
    policy: innerloop.Policy | None = None
    policy_name: str = ""

    @property
    def returns(self) -> list[float]:
        """Mean return before any step, and as each step's update left it: a step that the guard took back keeps the
        return of the state that it went back to. Of a learner that remembers, those of its episodes.
        """
        if SHOWN[self.family].remembers:
            return [step.pre_return for step in self.steps]
        curve = [self.steps[0].pre_return]
        for step in self.steps:
            curve.append(curve[-1] if step.guarded else float(step.post_return or 0.0))
        return curve


def main() -> int:
    """Run the demonstration. Exit status 1 when a family did not come nearer to its oracle than to the best policy that
    cannot adapt, or a downloaded policy acts differently from the served one.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", type=Path, default=Path("out/adaptation.png"), help="where the picture goes")
    args = parser.parse_args()
    console = Console()
    began = time.perf_counter()
    console.print("Starting a private server ...")
    with innerloop.embedded() as client:
        ready = time.perf_counter()
        console.print(f"Serving on {client.address} after {ready - began:.1f} s. Adapting to test tasks:\n")
        runs = adapt_all(client, console)
        took = time.perf_counter() - ready
        references = {name: bounds(client.family(name)) for name in SHOWN}
        print_table(console, runs, references)
        differences = [largest_difference(client, run) for run in runs]
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(args.picture, runs, references)
    console.print(f"{len(runs)} sessions adapted at once in {took:.1f} s. Picture: {args.picture}")
    console.print(f"Downloaded policies act like the served ones (largest difference {max(differences):.1e}).\n")
    console.print("What to type next (in the virtual environment: . .venv/bin/activate):")
    for line in (
        "innerloop families                                   # what there is",
        "innerloop adapt navigation-2d --param goal=0.3,-0.4  # your own task",
        "innerloop evaluate cartpole-dynamics                 # scores and bounds",
        "innerloop serve                                      # a server to stay",
    ):
        console.print("  " + line, highlight=False)
    adapted = all(closes_half(runs, family, references[family]) for family in SHOWN)
    return 0 if adapted and max(differences) < 1e-5 else 1


def bounds(family: innerloop.Family) -> dict[str, float]:
    """Reference -> return of an episode; of one that is known for a whole trial, the mean of its episodes."""
    episodes = {"trial": family.episodes_per_trial, "episode": 1}
    return {reference.name: reference.value / episodes[reference.unit] for reference in family.references}


def closes_half(runs: Sequence[Run], family: str, bounds: dict[str, float]) -> bool:
    """The mean after the last step lies nearer to the oracle than to the best policy that cannot adapt."""
    final = np.mean([run.returns[-1] for run in runs if run.family == family])
    return bool(final - bounds["memoryless"] > bounds["oracle"] - final)


def adapt_all(client: innerloop.Client, console: Console) -> list[Run]:
    """Every task in a session of its own, all at the same time."""
    runs = [
        Run(family, task)
        for family, shown in SHOWN.items()
        for task in client.sample_tasks(family, split="test", seed=TASK_SEED, count=shown.tasks)
    ]
    columns = (TextColumn("{task.description:<20}"), BarColumn(24), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(len(runs)) as pool:
        bars = {
            name: progress.add_task(name, total=shown.tasks * steps(name), note="") for name, shown in SHOWN.items()
        }
        sessions = [pool.submit(adapt, client, run, progress, bars[run.family], runs) for run in runs]
        for session in sessions:
            session.result()
    return runs


def steps(family: str) -> int:
    """Of a session: one more where the first is played from an empty memory."""
    return STEPS + SHOWN[family].remembers


def adapt(client: innerloop.Client, run: Run, progress: Progress, bar: TaskID, runs: Sequence[Run]) -> None:
    """One session, from its first message to the downloaded policy."""
    adaptation = client.adapt(
        run.family,
        run.task,
        steps=steps(run.family),
        episodes_per_step=SHOWN[run.family].episodes_per_step,
        seed=1,
        policy_in_steps=True,
        progress=False,
    )
    run.start = adaptation.opened.policy
    for step in adaptation:
        run.steps.append(step)
        mean = np.mean([r.returns[-1] for r in runs if r.family == run.family and r.steps])
        progress.update(bar, advance=1, note=f"mean return {mean:8.1f}")
    run.policy = adaptation.policy()
    run.policy_name = adaptation.result().policy.name


def print_table(console: Console, runs: Sequence[Run], references: dict[str, dict[str, float]]) -> None:
    """Before, after each step, and what it is read against: means over the tasks."""
    ages = ("before", *(f"step {k}" for k in range(1, STEPS + 1)))
    table = Table("family", *ages, "memoryless", "oracle", box=box.SIMPLE)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header == "family" else "right"
    for family in SHOWN:
        curve = np.mean([run.returns for run in runs if run.family == family], axis=0)
        numbers = [*curve, references[family]["memoryless"], references[family]["oracle"]]
        table.add_row(family, *(f"{value:.1f}" for value in numbers))
    console.print(table)
    single = " and ".join(name for name, shown in SHOWN.items() if shown.episodes_per_step == 1)
    console.print(
        "Mean returns of the tasks' own sampled episodes. A step is 20 episodes, and of\n"
        f"{single} one. memoryless: the best policy that\n"
        "cannot adapt, oracle: one told the hidden parameters; both over all tasks.\n"
    )


def largest_difference(client: innerloop.Client, run: Run) -> float:
    """Between what the downloaded policy does and what the server does with it, over random observations."""
    assert run.policy is not None
    shape = run.policy.header.observation_space.shape
    observations = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
    mine = run.policy.decide(observations, greedy=True, memory=run.policy.begin(len(observations)))
    served = client.act(run.policy_name, observations, greedy=True)
    return float(
        max(
            np.abs(mine.environment.astype(float) - served.actions.astype(float)).max(),
            np.abs(mine.log_prob.astype(float) - served.log_probs.astype(float)).max(),
        )
    )


def draw(path: Path, runs: Sequence[Run], references: dict[str, dict[str, float]]) -> None:
    """Paths of the navigation tasks before and after; return against adaptation step for every family."""
    figure = plt.figure(figsize=(13, 8), layout="constrained")
    halves = figure.add_gridspec(2, 1, height_ratios=[1.25, 1])
    above, below = (figure.add_subfigure(halves[i]) for i in (0, 1))
    ways, curves = above.subplots(1, 3), below.subplots(1, len(SHOWN))
    navigation = [run for run in runs if run.family == NAVIGATION]
    colours = [f"C{i}" for i in range(10)]
    for ax, k in zip(ways, (0, 1, STEPS), strict=True):
        title = f"after {k} step{'s' * (k > 1)}" if k else "before"
        for run, colour in zip(navigation, colours, strict=False):
            policy = run.start if k == 0 else run.steps[k - 1].policy
            assert policy is not None
            for episode in range(3):
                way = walk(policy, run.task, episode)
                ax.plot(way[:, 0], way[:, 1], color=colour, alpha=0.7, linewidth=1.1)
            goal = run.task.parameters["goal"]
            ax.plot(goal[0], goal[1], marker="*", color=colour, markersize=15, markeredgecolor="black")
        ax.set(title=f"{NAVIGATION}: {title}", xlim=(-0.75, 0.75), ylim=(-0.75, 0.75), aspect="equal")
    for ax, (family, known) in zip(curves, references.items(), strict=True):
        returns = np.array([run.returns for run in runs if run.family == family])
        age = np.arange(returns.shape[1])
        ax.plot(age, returns.T, color="0.75", linewidth=0.9)
        ax.plot(age, returns.mean(0), color="tab:blue", marker="o", linewidth=2, label="mean of the tasks")
        for name, style in (("oracle", "--"), ("memoryless", ":")):
            ax.axhline(known[name], color="black", linestyle=style, linewidth=1, label=f"{name}, over all tasks")
        each = SHOWN[family].episodes_per_step
        ax.set(title=family, xlabel=f"steps of {each} episode{'s' * (each > 1)}", xticks=age)
    curves[0].legend(fontsize=8, loc="lower right")
    curves[0].set_ylabel("return of an episode")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def walk(policy: innerloop.Policy, task: innerloop.Task, episode: int) -> np.ndarray:
    """Positions [T + 1, 2] of one episode, run here: the policy needs no server."""
    env = make_env(NAVIGATION, dict(task.parameters))
    rng = np.random.default_rng(episode)
    observation, _ = env.reset(seed=episode)
    way, done = [observation], False
    while not done:
        observation, _, terminated, truncated, _ = env.step(policy.act(observation, rng=rng))
        way.append(observation)
        done = terminated or truncated
    return np.array(way)


if __name__ == "__main__":
    sys.exit(main())
