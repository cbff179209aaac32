import base64
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from innerloop_server.errors import InvalidField
from innerloop_server.store.pages import PageRequest


def walk(store, owner, size, between=lambda: None):
    ids, token = [], ""
    while True:
        page = store.list_sessions(owner, PageRequest(size, token))
        ids += [each.id for each in page.items]
        token = page.next_token
        if not token:
            return ids
        between()


@pytest.fixture
def ids(store, made):
    return [store.create_session(made.session())[0].id for _ in range(7)][::-1]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_pages_hold_everything_once(store, ids, size) -> None:
    assert walk(store, "ann", size) == ids


def test_inserts_between_pages_move_nothing(store, made, clock, ids) -> None:
    def insert() -> None:
        clock.now -= 100  # a clock set back must not matter either
        store.create_session(made.session())

    assert walk(store, "ann", 2, insert) == ids


def test_a_removed_item_does_not_hide_others(store, ids, clock) -> None:
    first = store.list_sessions("ann", PageRequest(3))
    store.cancel_session(ids[2])
    store.cancel_session(ids[3])
    store.touch(ids, clock.now + 1)
    assert store.collect(clock.now + 900, retention_seconds=0.0).sessions == 2
    second = store.list_sessions("ann", PageRequest(3, first.next_token))
    assert [each.id for each in second.items] == ids[4:]


def test_an_exact_page_has_no_next(store, ids) -> None:
    assert store.list_sessions("ann", PageRequest(7)).next_token == ""


def test_a_token_is_good_for_its_list_alone(store, ids) -> None:
    token = store.list_sessions("ann", PageRequest(2)).next_token
    for call in (
        lambda: store.list_sessions("bob", PageRequest(2, token)),
        lambda: store.list_sessions("ann", PageRequest(2, token), state="active"),
        lambda: store.list_policies("ann", PageRequest(2, token)),
        lambda: store.list_learners("ann", PageRequest(2, token)),
    ):
        with pytest.raises(InvalidField) as caught:
            call()
        assert caught.value.field == "page_token"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.text() | st.binary().map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_any_other_text_is_no_token(store, token) -> None:
    if token:
        with pytest.raises(InvalidField, match="page_token"):
            store.list_sessions("ann", PageRequest(2, token))


@pytest.mark.parametrize("last", [2**63, -(2**63) - 1, "text", None, True, 1.0, [1]])
def test_forged_keys_are_refused(store, ids, last) -> None:
    token = store.list_sessions("ann", PageRequest(2)).next_token
    fingerprint, _ = json.loads(base64.urlsafe_b64decode(token + "=="))
    forged = base64.urlsafe_b64encode(json.dumps([fingerprint, last]).encode()).decode()
    with pytest.raises(InvalidField, match="page_token"):
        store.list_sessions("ann", PageRequest(2, forged))


def test_page_sizes(store, ids) -> None:
    assert len(store.list_sessions("ann", PageRequest(0)).items) == 7
    assert len(store.list_sessions("ann", PageRequest(10**12)).items) == 7
    with pytest.raises(InvalidField) as caught:
        store.list_sessions("ann", PageRequest(-1))
    assert caught.value.field == "page_size"
