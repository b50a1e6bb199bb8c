"""Calls and callers: attempts of one call, answers that did not arrive, feedback, used tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_CALL = "uq_predictions_call"
_KEY = ("organisation", "service", "hook", "hook_instance", "package_checksum", "state", "mode")


def upgrade() -> None:
    op.add_column(
        "predictions",
        # of rows made before this, "" says that their context is not known apart
        sa.Column("context_digest", sa.String(64), nullable=False, server_default=""),
    )
    op.add_column(
        "predictions", sa.Column("attempt", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column("predictions", sa.Column("attempt_of", sa.String(36)))
    with op.batch_alter_table("predictions") as table:
        table.drop_constraint(_CALL, type_="unique")
        table.create_unique_constraint(_CALL, [*_KEY, "attempt"])
    op.create_table(
        "undelivered",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("prediction_id", sa.String(36), nullable=False),
        sa.Column("how", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_undelivered"),
    )
    op.create_index("ix_undelivered_prediction_id", "undelivered", ["prediction_id"])
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("organisation", sa.String(64), nullable=False),
        sa.Column("caller", sa.String(128), nullable=False),
        sa.Column("service", sa.String(64), nullable=False),
        sa.Column("card", sa.String(64), nullable=False),
        sa.Column("prediction_id", sa.String(36)),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("accepted", sa.Text),
        sa.Column("outcome_at", sa.DateTime(timezone=True)),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
    )
    op.create_index("ix_feedback_prediction_id", "feedback", ["prediction_id"])
    op.create_table(
        "token_claims",
        sa.Column("claim", sa.String(64), nullable=False),
        sa.Column("body_digest", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("claim", name="pk_token_claims"),
    )
    op.create_index("ix_token_claims_expires_at", "token_claims", ["expires_at"])


def downgrade() -> None:
    repeated = sa.text("SELECT 1 FROM predictions WHERE attempt > 0 LIMIT 1")
    if op.get_bind().execute(repeated).first():
        raise RuntimeError(
            "a call was answered more than once on other data, which the earlier tables cannot "
            "hold: restore a backup instead"
        )
    for name in ("token_claims", "feedback", "undelivered"):
        op.drop_table(name)
    with op.batch_alter_table("predictions") as table:
        table.drop_constraint(_CALL, type_="unique")
        table.create_unique_constraint(_CALL, list(_KEY))
        for column in ("attempt_of", "attempt", "context_digest"):
            table.drop_column(column)
