"""Restrictions keep, sealed, whom they are about, so that they follow to a new pseudonym key."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("erasures") as table:
        # of decisions made before this, nothing is sealed: nobody knows any more whom they name
        table.add_column(sa.Column("key_id", sa.String(36)))
        table.add_column(sa.Column("sealed", sa.LargeBinary))
        table.create_foreign_key("fk_erasures_key", "vault_keys", ["key_id"], ["id"])
    op.create_index("ix_erasures_key_id", "erasures", ["key_id"])


def downgrade() -> None:
    if op.get_bind().execute(sa.text("SELECT 1 FROM erasures WHERE sealed IS NOT NULL")).first():
        raise RuntimeError(
            "restrictions keep whom they are about, and the earlier tables cannot hold that: "
            "restore a backup instead"
        )
    op.drop_index("ix_erasures_key_id", "erasures")
    with op.batch_alter_table("erasures") as table:
        table.drop_constraint("fk_erasures_key", type_="foreignkey")
        table.drop_column("sealed")
        table.drop_column("key_id")
