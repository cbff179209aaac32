"""What runs on SQLite is also SQL for PostgreSQL. (``INNERLOOP_TEST_DATABASE_URL`` runs the tests on a real one.)"""

from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from innerloop_server.domain import SessionState
from innerloop_server.store.pages import PageRequest
from innerloop_server.store.records import EvaluationState, TrainingState
from innerloop_server.store.schema import METADATA

DIALECT = postgresql.dialect()


def test_every_table_can_be_made() -> None:
    for table in METADATA.sorted_tables:
        ddl = str(CreateTable(table).compile(dialect=DIALECT))
        assert "BIGSERIAL" in ddl or "row" not in table.c


def test_every_statement_compiles(store, made, session, clock) -> None:
    compiled = set()

    def compile_too(_conn, statement, *_):
        if isinstance(statement, str):
            raise AssertionError(f"textual SQL may not be portable: {statement}")
        compiled.add(str(statement.compile(dialect=DIALECT)))

    event.listen(store._database.engine, "before_execute", compile_too)
    name = made.spec.name
    store.put_learner(made.spec)
    store.add_revision(name, made.weights(2), {})
    store.promote(name, 1)
    store.promote(name, 2)
    store.roll_back(name)
    store.list_learners("ann", PageRequest(1))
    store.list_revisions(name, PageRequest(1, store.list_revisions(name, PageRequest(1)).next_token))
    store.create_session(made.session(request_id="r"), active_limit=9)
    store.list_sessions("ann", PageRequest(1), SessionState.ACTIVE)
    store.commit([made.step(session.id, 1, 1)])
    store.steps_after(session.id, 0)
    store.reply_for_sequence(session.id, 1)
    store.final_reply(session.id)
    store.state_of(session.id)
    store.touch([session.id])
    store.finish_session(session.id, policy_id="p1", policy=made.weights(), header={}, reply=b"")
    store.list_policies("ann")
    store.delete_policy("p1", "ann")
    evaluation = store.create_evaluation({}, "ann", unfinished_limit=1)
    store.progress_evaluation(evaluation.id, 1, 2)
    store.cancel_evaluation(evaluation.id, "ann")
    store.list_evaluations("ann", state=EvaluationState.DONE)
    store.query_scores(family="f", learner_id="l", revision=1, k=0, owner="ann")
    training = store.create_training(name, {}, 0, 1)
    store.update_training(training.id, state=TrainingState.DONE)
    store.list_trainings("ann", learner_id=name, state=TrainingState.DONE)
    store.collect(clock.now + 1e9)
    store.counts()
    assert len(compiled) > 40
