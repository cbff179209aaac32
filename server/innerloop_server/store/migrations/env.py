"""What alembic runs: the migrations, on the connection that ``store.migrate`` hands over."""

from alembic import context

from innerloop_server.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite alters a table by rebuilding it
)
context.run_migrations()
