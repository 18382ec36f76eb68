"""The queue is listed and counted by index: over 100,000 open items a page sorted all of them."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

OPEN = "status IN ('pending', 'claimed')"
#: The queue's order as serving.reviews.queue.ORDER writes it; another text would use no index.
URGENCY = (
    "(CASE priority WHEN 'critical' THEN 0 WHEN 'high' THEN 1 WHEN 'moderate' THEN 2 "
    "WHEN 'low' THEN 3 ELSE 0 END), (-crisis_level), (-risk_score), created_at, id"
)
INDEXES = {
    "idx_review_items_urgency": f"({URGENCY}) WHERE {OPEN}",
    "idx_review_items_counts": f"(priority, status, due_at) WHERE {OPEN}",
    "idx_review_items_waiting": f"(created_at, id) WHERE {OPEN}",
    "idx_review_items_claimed_by": f"(claimed_by) WHERE {OPEN}",
}


def upgrade() -> None:
    for name, definition in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON review_items {definition}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
