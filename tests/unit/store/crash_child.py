"""Commits ticks of three sessions and says so, until it is killed. Run by ``test_crash``.

Arguments: the data directory, where to kill itself (``-``: nowhere) and in which tick.
"""

import os
import signal
import sys
from pathlib import Path

from sqlalchemy import event

from innerloop.arrays import Discrete
from innerloop_server.domain import Budget, Features, LearnerSpec
from innerloop_server.store.records import CommitStep, NewSession, StepRecord
from innerloop_server.store.store import Store

SPEC = LearnerSpec("l", "maml", "f", Discrete(2), Discrete(2), (), (), (), (), 10, Features())
WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"


def say(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(directory: Path, where: str, when: int) -> None:
    store = Store.open(directory)
    store.put_learner(SPEC)
    store.add_revision("l", WEIGHTS, {})
    new = NewSession("ann", "l", 1, "f", True, None, Budget(), 0, 900.0)
    ids = [store.create_session(new)[0].id for _ in range(3)]
    say(" ".join(ids))
    armed = False

    def before_statement(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if armed and statement.startswith(where):
            die()

    event.listen(store._database.engine, "before_cursor_execute", before_statement)
    event.listen(store._database.engine, "commit", lambda _conn: die() if armed and where == "COMMIT" else None)
    number = 0
    while True:
        number += 1
        armed = number == when
        states = {each: f"{each}:{number};".encode() * 500 for each in ids}
        store.commit([CommitStep(StepRecord(e, number, states[e][:50], number), states[e], number, 0.1) for e in ids])
        if armed and where == "answer":
            die()
        say(number)


main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
