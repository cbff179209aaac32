import asyncio


async def test_threads_of_a_gateway_share_a_store(store, made) -> None:
    """Openings, ticks, leases, lists and collections at once: each is whole, none is refused."""
    opened = await asyncio.gather(
        *(asyncio.to_thread(store.create_session, made.session(request_id=f"r{i % 10}")) for i in range(40))
    )
    ids = {session.id for session, _ in opened}
    assert len(ids) == sum(created for _, created in opened) == 10

    async def adapt(session_id: str) -> None:
        for number in range(1, 11):
            await asyncio.to_thread(store.commit, [made.step(session_id, number)])

    async def look() -> None:
        for _ in range(20):
            await asyncio.to_thread(store.touch, ids)
            await asyncio.to_thread(store.collect)
            page = await asyncio.to_thread(store.list_sessions, "ann")
            assert {each.id for each in page.items} == ids

    await asyncio.gather(*(adapt(each) for each in ids), look())
    assert {store.get_session(each).step for each in ids} == {10}
    assert store.counts()["steps"] == 100
