"""States of models: what was decided of each version, and the state each prediction was made in."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_CALL = ("organisation", "service", "hook", "hook_instance")
_OLD_CALL = "uq_predictions_organisation_service_hook_hook_instance"
_NEW_CALL = "uq_predictions_call"


def upgrade() -> None:
    op.create_table(
        "model_states",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("package_checksum", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("why", sa.String(1000), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_states"),
    )
    op.create_table(
        "model_records",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("package_checksum", sa.String(64), nullable=False),
        sa.Column("intended_purpose", sa.String(2000), nullable=False),
        sa.Column("regulatory_route", sa.String(16), nullable=False),
        sa.Column("ai_act_role", sa.String(16), nullable=False),
        sa.Column("clinical_owner", sa.String(128), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_records"),
    )
    op.add_column(
        "predictions",
        sa.Column("state", sa.String(16), comment="the version's state when it answered"),
    )
    # until now a model was either live or, by the site's setting, silent
    op.execute("UPDATE predictions SET state = mode")
    with op.batch_alter_table("predictions") as table:
        table.alter_column("state", existing_type=sa.String(16), nullable=False)
        table.drop_constraint(_OLD_CALL, type_="unique")
        table.create_unique_constraint(_NEW_CALL, [*_CALL, "package_checksum", "state", "mode"])


def downgrade() -> None:
    names = ", ".join(_CALL)
    repeated = sa.text(f"SELECT 1 FROM predictions GROUP BY {names} HAVING count(*) > 1 LIMIT 1")
    if op.get_bind().execute(repeated).first():
        raise RuntimeError(
            "a call was answered by several versions, states or modes, which the earlier tables "
            "cannot hold: restore a backup instead"
        )
    with op.batch_alter_table("predictions") as table:
        table.drop_constraint(_NEW_CALL, type_="unique")
        table.create_unique_constraint(_OLD_CALL, list(_CALL))
        table.drop_column("state")
    op.drop_table("model_records")
    op.drop_table("model_states")
