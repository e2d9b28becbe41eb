"""Sets with their picks and crops, the features of pictures"""

import sqlalchemy as sa
from alembic import op

from closedloop.storage.tables import UTCDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feature_parts",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("encoder", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_feature_parts_project_id")),
        sa.PrimaryKeyConstraint("project_id", "encoder", "id", name=op.f("pk_feature_parts")),
    )
    op.create_table(
        "feature_pictures",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("encoder", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("image_id", sa.String(length=32), nullable=False),
        sa.Column("part_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "encoder", "part_id"],
            ["feature_parts.project_id", "feature_parts.encoder", "feature_parts.id"],
            name=op.f("fk_feature_pictures_project_id_encoder_part_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "image_id"],
            ["images.project_id", "images.id"],
            name=op.f("fk_feature_pictures_project_id_image_id"),
        ),
        sa.PrimaryKeyConstraint("project_id", "encoder", "kind", "image_id", name=op.f("pk_feature_pictures")),
    )
    with op.batch_alter_table("feature_pictures", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_feature_pictures_project_id_encoder_part_id"),
            ["project_id", "encoder", "part_id"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_feature_pictures_project_id_image_id"), ["project_id", "image_id"], unique=False
        )

    op.create_table(
        "sets",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.Column("chance", sa.Float(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("release", sa.Text(), nullable=True),
        sa.Column("asked_at", UTCDateTime(), nullable=True),
        sa.Column("removed_at", UTCDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_sets_project_id")),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_sets")),
    )
    with op.batch_alter_table("sets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sets_project_id_created_at"), ["project_id", "created_at"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_sets_project_id_asked_at_confidence"),
            ["project_id", "asked_at", "confidence"],
            unique=False,
        )

    op.create_table(
        "shared_datasets",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("head", sa.String(length=32), nullable=False),
        sa.Column("release_id", sa.String(length=32), nullable=False),
        sa.Column("of_project_id", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["of_project_id", "dataset_id"],
            ["datasets.project_id", "datasets.id"],
            name=op.f("fk_shared_datasets_of_project_id_dataset_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "head", "release_id"],
            ["releases.project_id", "releases.head", "releases.id"],
            name=op.f("fk_shared_datasets_project_id_head_release_id"),
        ),
        sa.PrimaryKeyConstraint("project_id", "head", "release_id", "of_project_id", name=op.f("pk_shared_datasets")),
    )
    with op.batch_alter_table("shared_datasets", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_shared_datasets_of_project_id_dataset_id"), ["of_project_id", "dataset_id"], unique=False
        )

    op.create_table(
        "set_senders",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("visitor", sa.String(length=32), nullable=False),
        sa.Column("sent_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "set_id"], ["sets.project_id", "sets.id"], name=op.f("fk_set_senders_project_id_set_id")
        ),
        sa.PrimaryKeyConstraint("project_id", "set_id", "visitor", name=op.f("pk_set_senders")),
    )
    with op.batch_alter_table("set_senders", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_set_senders_visitor_project_id_sent_at"),
            ["visitor", "project_id", "sent_at"],
            unique=False,
        )

    op.create_table(
        "dataset_sets",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=16), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("label", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "dataset_id"],
            ["datasets.project_id", "datasets.id"],
            name=op.f("fk_dataset_sets_project_id_dataset_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "set_id"], ["sets.project_id", "sets.id"], name=op.f("fk_dataset_sets_project_id_set_id")
        ),
        sa.PrimaryKeyConstraint("project_id", "dataset_id", "set_id", name=op.f("pk_dataset_sets")),
    )
    with op.batch_alter_table("dataset_sets", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_dataset_sets_project_id_set_id"), ["project_id", "set_id"], unique=False)

    op.create_table(
        "logged_crops",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("image_id", sa.String(length=32), nullable=False),
        sa.Column("x1", sa.Float(), nullable=False),
        sa.Column("y1", sa.Float(), nullable=False),
        sa.Column("x2", sa.Float(), nullable=False),
        sa.Column("y2", sa.Float(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "image_id"],
            ["images.project_id", "images.id"],
            name=op.f("fk_logged_crops_project_id_image_id"),
        ),
        sa.PrimaryKeyConstraint("project_id", "image_id", name=op.f("pk_logged_crops")),
    )
    op.create_table(
        "proposals",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("image_id", sa.String(length=32), nullable=False),
        sa.Column("x1", sa.Float(), nullable=False),
        sa.Column("y1", sa.Float(), nullable=False),
        sa.Column("x2", sa.Float(), nullable=False),
        sa.Column("y2", sa.Float(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("release", sa.Text(), nullable=False),
        sa.Column("encoder", sa.String(length=64), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "image_id"],
            ["images.project_id", "images.id"],
            name=op.f("fk_proposals_project_id_image_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposals")),
    )
    with op.batch_alter_table("proposals", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_proposals_project_id_image_id_created_at"),
            ["project_id", "image_id", "created_at"],
            unique=False,
        )

    op.create_table(
        "set_pictures",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "image_id"],
            ["images.project_id", "images.id"],
            name=op.f("fk_set_pictures_project_id_image_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "set_id"], ["sets.project_id", "sets.id"], name=op.f("fk_set_pictures_project_id_set_id")
        ),
        sa.PrimaryKeyConstraint("project_id", "set_id", "position", name=op.f("pk_set_pictures")),
        sa.UniqueConstraint(
            "project_id", "set_id", "image_id", name=op.f("uq_set_pictures_project_id_set_id_image_id")
        ),
    )
    with op.batch_alter_table("set_pictures", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_set_pictures_project_id_image_id"), ["project_id", "image_id"], unique=False
        )

    op.create_table(
        "logged_picks",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("image_id", sa.String(length=32), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "set_id", "image_id"],
            ["set_pictures.project_id", "set_pictures.set_id", "set_pictures.image_id"],
            name=op.f("fk_logged_picks_project_id_set_id_image_id"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "set_id"], ["sets.project_id", "sets.id"], name=op.f("fk_logged_picks_project_id_set_id")
        ),
        sa.PrimaryKeyConstraint("project_id", "set_id", name=op.f("pk_logged_picks")),
    )
    op.create_table(
        "suggestions",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("set_id", sa.String(length=32), nullable=False),
        sa.Column("best", sa.String(length=32), nullable=True),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("release", sa.Text(), nullable=True),
        sa.Column("encoder", sa.String(length=64), nullable=False),
        sa.Column("created_at", UTCDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id", "set_id", "best"],
            ["set_pictures.project_id", "set_pictures.set_id", "set_pictures.image_id"],
            name=op.f("fk_suggestions_project_id_set_id_best"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "set_id"], ["sets.project_id", "sets.id"], name=op.f("fk_suggestions_project_id_set_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suggestions")),
    )
    with op.batch_alter_table("suggestions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_suggestions_project_id_set_id_created_at"),
            ["project_id", "set_id", "created_at"],
            unique=False,
        )

    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("set_id", sa.String(length=32), nullable=True))
        batch_op.add_column(sa.Column("reason", sa.String(length=16), nullable=True))
        batch_op.alter_column("image_id", existing_type=sa.String(length=32), nullable=True)
        batch_op.create_unique_constraint(
            batch_op.f("uq_tasks_project_id_set_id_queue"), ["project_id", "set_id", "queue"]
        )
        batch_op.create_foreign_key(
            batch_op.f("fk_tasks_project_id_set_id"), "sets", ["project_id", "set_id"], ["project_id", "id"]
        )
        batch_op.create_check_constraint("ck_tasks_one_subject", "(image_id IS NULL) <> (set_id IS NULL)")
