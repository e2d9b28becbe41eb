"""When each embedding came, so that whoever looks for similar pictures can follow"""

import sqlalchemy as sa
from alembic import op

from closedloop.storage.tables import UTCDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("embeddings", sa.Column("added_at", UTCDateTime(), nullable=True))
    op.create_index(op.f("ix_embeddings_encoder_added_at"), "embeddings", ["encoder", "added_at"])
    op.create_index(op.f("ix_images_removed_at"), "images", ["removed_at"])
