"""Accounts, the catalogue of pictures, surveys, manifest changes, tombstones"""

import sqlalchemy as sa
from alembic import op

from closedloop.storage.tables import UTCDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("everywhere", sa.Boolean(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("email", name=op.f("uq_accounts_email")),
    )
    op.create_table(
        "rates",
        sa.Column("key", sa.String(length=120), nullable=False),
        sa.Column("starts_at", UTCDateTime(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", "starts_at", name=op.f("pk_rates")),
    )
    with op.batch_alter_table("rates", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rates_starts_at"), ["starts_at"], unique=False)

    op.create_table(
        "api_tokens",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_api_tokens_account_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_api_tokens")),
    )
    with op.batch_alter_table("api_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_tokens_account_id"), ["account_id"], unique=False)

    op.create_table(
        "invitations",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_invitations_project_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_invitations")),
    )
    with op.batch_alter_table("invitations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_invitations_project_id"), ["project_id"], unique=False)

    op.create_table(
        "manifest_changes",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_manifest_changes_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifest_changes")),
    )
    with op.batch_alter_table("manifest_changes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_manifest_changes_project_id_id"), ["project_id", "id"], unique=False)

    op.create_table(
        "memberships",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_memberships_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_memberships_project_id")),
        sa.PrimaryKeyConstraint("project_id", "account_id", name=op.f("pk_memberships")),
    )
    with op.batch_alter_table("memberships", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_memberships_account_id"), ["account_id"], unique=False)

    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("expires_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_sessions_account_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sessions")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sessions_account_id"), ["account_id"], unique=False)

    op.create_table(
        "surveys",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_surveys_project_id")),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_surveys")),
    )
    op.create_table(
        "catalogue",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("image_id", sa.String(length=32), nullable=False),
        sa.Column("arrived_at", UTCDateTime(), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("flagged", sa.Boolean(), nullable=False),
        sa.Column("user_label", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("disagrees", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "image_id"],
            ["images.project_id", "images.id"],
            name=op.f("fk_catalogue_project_id_image_id"),
        ),
        sa.PrimaryKeyConstraint("project_id", "image_id", name=op.f("pk_catalogue")),
    )
    with op.batch_alter_table("catalogue", schema=None) as batch_op:
        batch_op.create_index(
            "ix_catalogue_answer_arrived", ["project_id", "answer", "arrived_at", "image_id"], unique=False
        )
        batch_op.create_index(
            "ix_catalogue_answered_arrived", ["project_id", "answered", "arrived_at", "image_id"], unique=False
        )
        batch_op.create_index("ix_catalogue_arrived", ["project_id", "arrived_at", "image_id"], unique=False)
        batch_op.create_index("ix_catalogue_confidence", ["project_id", "confidence", "image_id"], unique=False)
        batch_op.create_index(
            "ix_catalogue_disagrees_arrived", ["project_id", "disagrees", "arrived_at", "image_id"], unique=False
        )
        batch_op.create_index(
            "ix_catalogue_flagged_arrived", ["project_id", "flagged", "arrived_at", "image_id"], unique=False
        )
        batch_op.create_index(
            "ix_catalogue_flagged_confidence", ["project_id", "flagged", "confidence", "image_id"], unique=False
        )
        batch_op.create_index(
            "ix_catalogue_label_answer_arrived",
            ["project_id", "label", "answer", "arrived_at", "image_id"],
            unique=False,
        )
        batch_op.create_index(
            "ix_catalogue_label_arrived", ["project_id", "label", "arrived_at", "image_id"], unique=False
        )
        batch_op.create_index(
            "ix_catalogue_label_confidence", ["project_id", "label", "confidence", "image_id"], unique=False
        )

    with op.batch_alter_table("dataset_items", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_dataset_items_project_id_image_id"), ["project_id", "image_id"], unique=False
        )

    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.add_column(sa.Column("removed_at", UTCDateTime(), nullable=True))
        batch_op.add_column(sa.Column("removed_by", sa.Text(), nullable=True))
        batch_op.create_index(batch_op.f("ix_images_project_id_removed_at"), ["project_id", "removed_at"], unique=False)

    with op.batch_alter_table("predictions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("visitor", sa.String(length=32), nullable=True))
        batch_op.drop_index(batch_op.f("ix_predictions_project_id_image_id"))
        batch_op.create_index(
            batch_op.f("ix_predictions_project_id_image_id_created_at"),
            ["project_id", "image_id", "created_at"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_predictions_visitor_project_id_created_at"),
            ["visitor", "project_id", "created_at"],
            unique=False,
        )

    op.create_table(
        "leftovers",
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("queue", sa.String(length=32), nullable=False),
        sa.Column("annotations", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_leftovers_project_id")),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_leftovers")),
    )
    with op.batch_alter_table("leftovers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_leftovers_project_id_queue"), ["project_id", "queue"], unique=False)

    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("withdrawn_at", UTCDateTime(), nullable=True))
        batch_op.create_index(
            batch_op.f("ix_tasks_project_id_prediction_id"), ["project_id", "prediction_id"], unique=False
        )
        batch_op.create_index(
            batch_op.f("ix_tasks_project_id_queue_image_id"), ["project_id", "queue", "image_id"], unique=False
        )
