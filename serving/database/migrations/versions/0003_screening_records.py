"""What the models saw, which release answered, shadow predictions, idempotency keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from serving.database.privileges import make_grant_statement

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PRIVILEGES = {
    "shadow_predictions": ("SELECT", "INSERT", "DELETE"),
    "idempotency_keys": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _extend_predictions()
    _create_shadow_predictions()
    _create_idempotency_keys()
    for table, privileges in PRIVILEGES.items():
        op.execute(make_grant_statement(table, *privileges))


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_table("shadow_predictions")
    op.execute("UPDATE predictions SET answer = answer || inputs")
    op.drop_column("predictions", "inputs")
    op.drop_column("predictions", "arm")


def _extend_predictions() -> None:
    op.add_column(
        "predictions",
        sa.Column("arm", sa.String(16), nullable=False, server_default="production"),
    )
    op.add_column(
        "predictions",
        sa.Column("inputs", postgresql.JSONB(), nullable=False, server_default="{}"),
    )
    # Until now the feature values stood among the parts of the answer.
    op.execute(
        "UPDATE predictions SET answer = answer - 'features', "
        "inputs = jsonb_build_object('features', answer -> 'features')"
    )
    for column in ("arm", "inputs"):
        op.alter_column("predictions", column, server_default=None)


def _create_shadow_predictions() -> None:
    op.create_table(
        "shadow_predictions",
        sa.Column(
            "prediction_id",
            sa.UUID(),
            sa.ForeignKey("predictions.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("release_version", sa.String(32), nullable=False),
        sa.Column("arm", sa.String(16), nullable=False),
        sa.Column("risk_score", sa.Float()),
        sa.Column("probability", sa.Float()),
        sa.Column("needs_review", sa.Boolean()),
        sa.Column("error", sa.Text()),
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Text(), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("claimed_at", INSTANT, nullable=False),
        sa.Column("prediction_id", sa.UUID(), sa.ForeignKey("predictions.id", ondelete="CASCADE")),
        sa.Column("answer", postgresql.JSONB()),
    )
    op.create_index("idx_idempotency_keys_claimed_at", "idempotency_keys", ["claimed_at"])
