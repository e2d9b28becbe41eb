"""Pins: releases that stay live"""

import sqlalchemy as sa
from alembic import op

from closedloop.storage.tables import UTCDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pins",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("head", sa.String(length=32), nullable=False),
        sa.Column("release_id", sa.String(length=32), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "head", "release_id"],
            ["releases.project_id", "releases.head", "releases.id"],
            name=op.f("fk_pins_project_id_head_release_id"),
        ),
        sa.PrimaryKeyConstraint("project_id", "head", name=op.f("pk_pins")),
    )
