"""Alembic's entry: runs migrations on the engine that `cds_service.db.migrate` hands over."""

from alembic import context

from cds_service.db.tables import metadata

engine = context.config.attributes["engine"]

with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
