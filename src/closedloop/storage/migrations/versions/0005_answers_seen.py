"""Up to which annotation a queue was compared with Label Studio's own"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("label_studio_projects", sa.Column("answers_seen", sa.BigInteger(), nullable=True))
