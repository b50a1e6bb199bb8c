"""The prediction log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("prediction_id", sa.String(36), nullable=False),
        sa.Column("organisation", sa.String(64), nullable=False),
        sa.Column("unit", sa.String(64)),
        sa.Column("caller", sa.String(128), nullable=False),
        sa.Column("service", sa.String(64), nullable=False),
        sa.Column("hook", sa.String(64), nullable=False),
        sa.Column("hook_instance", sa.String(36), nullable=False),
        sa.Column("content_digest", sa.String(64), nullable=False),
        sa.Column("model_id", sa.String(64), nullable=False),
        sa.Column("model_version", sa.String(32), nullable=False),
        sa.Column("package_checksum", sa.String(64), nullable=False),
        sa.Column("software_version", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("arm", sa.String(32)),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("patient_pseudonym", sa.String(32), nullable=False),
        sa.Column("encounter_pseudonym", sa.String(32)),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("index_time", sa.DateTime(timezone=True)),
        sa.Column("computed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String(24), nullable=False),
        sa.Column("reason", sa.String(256)),
        sa.Column("returned", sa.String(32), nullable=False),
        sa.Column(
            "features", sa.Text, comment="values with provenance; null for calls not eligible"
        ),
        sa.Column(
            "document",
            sa.Text,
            nullable=False,
            comment="the prediction, sources and cards left out",
        ),
        sa.Column("response", sa.Text, nullable=False, comment="the body that was returned"),
        sa.Column("timings", sa.Text, nullable=False, comment="milliseconds per stage"),
        sa.Column(
            "sealed",
            sa.LargeBinary,
            nullable=False,
            comment="references, AES-GCM, see privacy.py",
        ),
        sa.PrimaryKeyConstraint("prediction_id", name="pk_predictions"),
        sa.UniqueConstraint(
            "organisation",
            "service",
            "hook",
            "hook_instance",
            name="uq_predictions_organisation_service_hook_hook_instance",
        ),
    )
    op.create_index("ix_predictions_model_id_as_of", "predictions", ["model_id", "as_of"])
    op.create_index("ix_predictions_patient_pseudonym", "predictions", ["patient_pseudonym"])


def downgrade() -> None:
    op.drop_table("predictions")
