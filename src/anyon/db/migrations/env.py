"""What alembic runs: the migrations, in the connection (and transaction) that it was handed."""

from alembic import context

from anyon.db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
