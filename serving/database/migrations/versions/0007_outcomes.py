"""Labels of predictions, drift of outcomes and groups, notices of consents that end."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from serving.database.privileges import make_grant_statement

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _create_prediction_labels()
    _create_consent_notices()
    for name, empty in (("outcomes", "{}"), ("groups", "[]")):
        op.add_column(
            "drift_reports",
            sa.Column(name, postgresql.JSONB(), nullable=False, server_default=empty),
        )


def downgrade() -> None:
    op.drop_column("drift_reports", "groups")
    op.drop_column("drift_reports", "outcomes")
    op.drop_table("consent_notices")
    op.drop_table("prediction_labels")


def _create_prediction_labels() -> None:
    op.create_table(
        "prediction_labels",
        sa.Column(
            "prediction_id",
            sa.UUID(),
            sa.ForeignKey("predictions.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("anonymized_id", sa.String(32), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("deteriorated", sa.Boolean()),
        sa.Column("reviewed_band", sa.String(16)),
        sa.Column("reason_code", sa.String(32)),
        sa.Column("settled_at", INSTANT, nullable=False),
    )
    op.create_index("idx_prediction_labels_anonymized_id", "prediction_labels", ["anonymized_id"])
    # A flow writes them; the API tells them, and removes them with the individual.
    op.execute(make_grant_statement("prediction_labels", "SELECT", "DELETE"))


def _create_consent_notices() -> None:
    op.create_table(
        "consent_notices",
        sa.Column("anonymized_id", sa.String(32), primary_key=True),
        sa.Column("granted_at", INSTANT, primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("data_types", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("purposes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("noticed_at", INSTANT, nullable=False),
    )
    op.create_index("idx_consent_notices_noticed_at", "consent_notices", ["noticed_at"])
    op.execute(make_grant_statement("consent_notices", "SELECT", "DELETE"))
