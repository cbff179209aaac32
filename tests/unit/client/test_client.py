from __future__ import annotations

import innerloop


def test_adapts_to_a_sampled_task_and_downloads_the_policy(client, server):
    (task,) = client.sample_tasks("navigation-2d", seed=7)
    adaptation = client.adapt("navigation-2d", task, steps=3, seed=5)

    session = adaptation.session
    assert repr(adaptation) == f"Adaptation({session}, step 0, under way)"
    assert adaptation.opened.task == task or adaptation.opened.task.name == task.name
    assert [step.number for step in adaptation] == [1, 2, 3]
    assert adaptation.adapted is not None
    assert repr(adaptation) == f"Adaptation({session}, step 3, budget_steps)"
    assert adaptation.adapted.end_reason == "budget_steps"
    policy = adaptation.policy()
    assert isinstance(policy, innerloop.Policy)
    assert policy.header.steps == 3
