"""Vault and chain: payloads by month, identities apart, tamper evidence, audit, erasures."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_PAYLOAD = ("features", "document", "response", "timings")
_PLACE = ("organisation", "chain_day", "chain_writer", "chain_sequence")
_MONTHS_AHEAD = 12


def upgrade() -> None:
    _create_payloads()
    _create_vault()
    copied = ", ".join(_PAYLOAD)
    op.execute(
        f"INSERT INTO prediction_payloads (prediction_id, computed_at, {copied}) "
        f"SELECT prediction_id, computed_at, {copied} FROM predictions"
    )
    op.execute(
        "INSERT INTO vault_entries (prediction_id, sealed) SELECT prediction_id, sealed "
        "FROM predictions"
    )
    with op.batch_alter_table("predictions") as table:
        for name in (*_PAYLOAD, "sealed"):
            table.drop_column(name)
        for column in _added():
            table.add_column(column)
        table.create_unique_constraint("uq_predictions_chain", list(_PLACE))
    op.create_index(
        "ix_predictions_organisation_computed_at_prediction_id",
        "predictions",
        ["organisation", "computed_at", "prediction_id"],
    )
    _create_audit()


def _added() -> list[sa.Column[Any]]:
    return [
        sa.Column("purpose", sa.String(32), nullable=False, server_default="treatment"),
        sa.Column("legal_ground", sa.String(128), nullable=False, server_default=""),
        sa.Column("pseudonym_key", sa.String(16), nullable=False, server_default="0"),
        sa.Column("digest_key", sa.String(16), nullable=False, server_default="0"),
        sa.Column("libraries", sa.String(128), nullable=False, server_default=""),
        sa.Column("erasure", sa.String(36)),
        *_chained(),
    ]


def _chained() -> list[sa.Column[Any]]:
    return [
        sa.Column("chain_day", sa.Date),
        sa.Column("chain_writer", sa.String(36)),
        sa.Column("chain_sequence", sa.Integer),
        sa.Column("commitment", sa.LargeBinary),
        sa.Column("link", sa.LargeBinary),
    ]


def _create_payloads() -> None:
    op.create_table(
        "prediction_payloads",
        sa.Column("prediction_id", sa.String(36), nullable=False),
        sa.Column("computed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("features", sa.Text),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("response", sa.Text, nullable=False),
        sa.Column("timings", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("prediction_id", "computed_at", name="pk_prediction_payloads"),
        postgresql_partition_by="RANGE (computed_at)",
    )
    if op.get_bind().dialect.name == "postgresql":
        # what no month was made for is kept all the same
        op.execute(
            "CREATE TABLE prediction_payloads_other PARTITION OF prediction_payloads DEFAULT"
        )
        for start, end in _months():
            op.execute(
                f"CREATE TABLE prediction_payloads_{start:%Y_%m} PARTITION OF prediction_payloads "
                f"FOR VALUES FROM ('{start:%Y-%m-%d}+00') TO ('{end:%Y-%m-%d}+00')"
            )


def _months() -> list[tuple[dt.date, dt.date]]:
    """The months from the first prediction's, or this one, to a year ahead."""
    oldest = op.get_bind().execute(sa.text("SELECT min(computed_at) FROM predictions")).scalar()
    today = dt.datetime.now(dt.UTC).date()
    first = (oldest.astimezone(dt.UTC).date() if oldest else today).replace(day=1)
    last = (today.replace(day=1) + dt.timedelta(days=31 * _MONTHS_AHEAD)).replace(day=1)
    months = []
    while first < last:
        following = (first + dt.timedelta(days=32)).replace(day=1)
        months.append((first, following))
        first = following
    return months


def _create_vault() -> None:
    op.create_table(
        "vault_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("organisation", sa.String(64), nullable=False),
        sa.Column("patient_pseudonym", sa.String(32), nullable=False),
        sa.Column("cpr_pseudonym", sa.String(32)),
        sa.Column("pseudonym_key", sa.String(16), nullable=False),
        sa.Column("seal_key", sa.String(16), nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_vault_keys"),
        sa.UniqueConstraint("organisation", "patient_pseudonym", name="uq_vault_keys_patient"),
    )
    op.create_index("ix_vault_keys_cpr_pseudonym", "vault_keys", ["cpr_pseudonym"])
    op.create_table(
        "vault_entries",
        sa.Column("prediction_id", sa.String(36), nullable=False),
        sa.Column("key_id", sa.String(36)),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("prediction_id", name="pk_vault_entries"),
        sa.ForeignKeyConstraint(["key_id"], ["vault_keys.id"], name="fk_vault_entries_key"),
    )
    op.create_index("ix_vault_entries_key_id", "vault_entries", ["key_id"])


def _create_audit() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("organisation", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("what", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64)),
        sa.Column("why", sa.String(1000), nullable=False, server_default=""),
        sa.Column("details", sa.Text, nullable=False, server_default="{}"),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        *_chained(),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
        sa.UniqueConstraint(*_PLACE, name="uq_audit_entries_chain"),
    )
    op.create_index("ix_audit_entries_organisation_at", "audit_entries", ["organisation", "at"])
    op.create_index("ix_audit_entries_subject", "audit_entries", ["subject"])
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("organisation", sa.String(64), nullable=False),
        sa.Column("patient_pseudonym", sa.String(32), nullable=False),
        sa.Column("pseudonym_key", sa.String(16), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("ground", sa.String(1000), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("predictions", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
    )
    op.create_index(
        "ix_erasures_organisation_patient_pseudonym",
        "erasures",
        ["organisation", "patient_pseudonym"],
    )


def downgrade() -> None:
    for name in ("vault_keys", "audit_entries", "erasures"):
        if op.get_bind().execute(sa.text(f"SELECT 1 FROM {name} LIMIT 1")).first():
            raise RuntimeError(
                f"{name} is not empty, and the earlier tables cannot hold it: restore a backup "
                "instead"
            )
    deleted = sa.text(
        "SELECT 1 FROM predictions p WHERE NOT EXISTS (SELECT 1 FROM prediction_payloads x "
        "WHERE x.prediction_id = p.prediction_id AND x.computed_at = p.computed_at) LIMIT 1"
    )
    if op.get_bind().execute(deleted).first():
        raise RuntimeError(
            "payloads of predictions were deleted, and the earlier tables cannot hold a prediction "
            "without one: restore a backup instead"
        )
    op.drop_index("ix_predictions_organisation_computed_at_prediction_id", "predictions")
    with op.batch_alter_table("predictions") as table:
        table.drop_constraint("uq_predictions_chain", type_="unique")
        for column in _added():
            table.drop_column(column.name)
        table.add_column(sa.Column("features", sa.Text))
        for name in ("document", "response", "timings"):
            table.add_column(sa.Column(name, sa.Text, nullable=False, server_default=""))
        table.add_column(
            sa.Column("sealed", sa.LargeBinary, nullable=False, server_default=sa.text("''"))
        )
    for name in _PAYLOAD:
        op.execute(
            f"UPDATE predictions SET {name} = (SELECT p.{name} FROM prediction_payloads p "
            "WHERE p.prediction_id = predictions.prediction_id "
            "AND p.computed_at = predictions.computed_at)"
        )
    op.execute(
        "UPDATE predictions SET sealed = (SELECT v.sealed FROM vault_entries v "
        "WHERE v.prediction_id = predictions.prediction_id)"
    )
    with op.batch_alter_table("predictions") as table:
        for name in ("document", "response", "timings", "sealed"):
            table.alter_column(name, server_default=None)
    for name in ("prediction_payloads", "vault_entries", "erasures", "audit_entries", "vault_keys"):
        op.drop_table(name)
