"""Alembic's entry: runs migrations on the engine that `cds_service.db.migrate` hands over.

All of them, or none: where one is refused, those before it are taken back too.
"""

from alembic import context

from cds_service.db.tables import metadata

engine = context.config.attributes["engine"]

with engine.connect() as connection:
    if engine.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN")  # Python's driver begins before rows, not before tables
    if engine.dialect.name == "postgresql":
        # one upgrade at a time, however many replicas begin one; copying a large log takes longer
        # than a statement of the service may
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('varsel migrations'))")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
