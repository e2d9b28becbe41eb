"""Every table. Composite foreign keys carry the project, so that no row can name a picture of another project."""

import datetime as dt
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UTCDateTime(sa.types.TypeDecorator[dt.datetime]):
    """A moment, always with its zone: SQLite forgets zones, so they are taken off and put back here."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        """To UTC; a moment without a zone is a mistake of ours."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a zone")
        return value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        """With its zone, whatever the database made of it."""
        return value if value is None or value.tzinfo else value.replace(tzinfo=dt.UTC)


def _table(name: str, *parts: Any) -> sa.Table:
    return sa.Table(name, metadata, *parts)


def _of_image() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["project_id", "image_id"], ["images.project_id", "images.id"])


def _of_set() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["project_id", "set_id"], ["sets.project_id", "sets.id"])


def _in_set(picture: str) -> sa.ForeignKeyConstraint:
    """A picture out of the set itself: no other can be called its best."""
    members = ["set_pictures.project_id", "set_pictures.set_id", "set_pictures.image_id"]
    return sa.ForeignKeyConstraint(["project_id", "set_id", picture], members)


def _box() -> list[sa.Column[float]]:
    """A part of a picture: its left, upper, right and lower edge as fractions (0-1) of width and height."""
    return [sa.Column(name, sa.Float, nullable=False) for name in ("x1", "y1", "x2", "y2")]


projects = _table(
    "projects",
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("manifest", sa.JSON, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("changed_at", UTCDateTime, nullable=False),
)

images = _table(
    "images",
    sa.Column("project_id", sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("key", sa.Text, nullable=False),  # in S3, bucket first
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("phash", sa.String(16), nullable=False),
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("source", sa.String(16), nullable=False),  # upload | import
    sa.Column("arrived_at", UTCDateTime, nullable=False),
    # A tombstone: its bytes and what was derived from it are gone, and datasets that named it still may.
    sa.Column("removed_at", UTCDateTime),
    sa.Column("removed_by", sa.Text),  # "visitor", or an account's address
    sa.Index(None, "project_id", "source", "arrived_at"),
    sa.Index(None, "project_id", "removed_at"),
    sa.Index(None, "removed_at"),
)

predictions = _table(
    "predictions",
    sa.Column("id", sa.String(32), primary_key=True),  # unguessable: whoever knows it may give feedback
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("image_id", sa.String(32), nullable=False),
    sa.Column("status", sa.String(8), nullable=False),  # pending | done
    sa.Column("label", sa.Text),
    sa.Column("confidence", sa.Float),
    sa.Column("probabilities", sa.JSON),
    sa.Column("release", sa.Text),
    sa.Column("encoder", sa.String(64)),  # digest of its weights
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("answered_at", UTCDateTime),
    sa.Column("idempotency_key", sa.String(200)),
    sa.Column("visitor", sa.String(32)),  # who sent the picture: the digest of a cookie
    _of_image(),
    sa.UniqueConstraint("project_id", "id"),
    sa.UniqueConstraint("project_id", "idempotency_key"),
    sa.Index(None, "project_id", "image_id", "created_at"),
    sa.Index(None, "project_id", "created_at"),
    sa.Index(None, "visitor", "project_id", "created_at"),
)

embeddings = _table(  # each picture is embedded once per encoder, ever
    "embeddings",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("image_id", sa.String(32), primary_key=True),
    sa.Column("encoder", sa.String(64), primary_key=True),
    sa.Column("vector", sa.LargeBinary, nullable=False),  # float32, little-endian, unit length
    sa.Column("added_at", UTCDateTime),  # of those that came before this was kept: nothing
    _of_image(),
    sa.Index(None, "encoder", "added_at"),
)

feedback = _table(
    "feedback",
    sa.Column("prediction_id", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(8), primary_key=True),  # flag | label
    sa.Column("label", sa.String(200), primary_key=True),  # "" for a flag
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("said_at", UTCDateTime, nullable=False),
    sa.ForeignKeyConstraint(["project_id", "prediction_id"], ["predictions.project_id", "predictions.id"]),
)

sets = _table(  # pictures of one project of which one is the best
    "sets",
    sa.Column("project_id", sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("id", sa.String(32), primary_key=True),  # digest of the project and its pictures
    sa.Column("status", sa.String(8), nullable=False),  # pending (nobody has suggested yet) | done
    sa.Column("source", sa.String(16), nullable=False),  # upload | import
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("chance", sa.Float, nullable=False),  # probability (0-1) of being asked about by chance
    sa.Column("confidence", sa.Float),  # of the newest suggestion, None while there is none
    sa.Column("release", sa.Text),  # that gave it
    sa.Column("asked_at", UTCDateTime),  # when it entered the queue, by chance or because the ranker was not sure
    sa.Column("removed_at", UTCDateTime),  # a tombstone: datasets that named it still may
    sa.Index(None, "project_id", "created_at"),
    sa.Index(None, "project_id", "asked_at", "confidence"),
)

set_senders = _table(  # visitors who sent a set: each sees it among his own, and takes back that he sent it
    "set_senders",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("set_id", sa.String(32), primary_key=True),
    sa.Column("visitor", sa.String(32), primary_key=True),  # the digest of a cookie
    sa.Column("sent_at", UTCDateTime, nullable=False),
    _of_set(),
    sa.Index(None, "visitor", "project_id", "sent_at"),
)

set_pictures = _table(
    "set_pictures",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("set_id", sa.String(32), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("image_id", sa.String(32), nullable=False),
    _of_set(),
    _of_image(),
    sa.UniqueConstraint("project_id", "set_id", "image_id"),
    sa.Index(None, "project_id", "image_id"),
)

suggestions = _table(  # what a release said about a set; the newest counts
    "suggestions",
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("set_id", sa.String(32), nullable=False),
    sa.Column("best", sa.String(32)),  # None: no release could answer
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("scores", sa.JSON, nullable=False),  # picture -> score
    sa.Column("release", sa.Text),
    sa.Column("encoder", sa.String(64), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    _of_set(),
    _in_set("best"),
    sa.Index(None, "project_id", "set_id", "created_at"),
)

proposals = _table(  # which part of a picture a release would keep; the newest counts
    "proposals",
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("image_id", sa.String(32), nullable=False),
    *_box(),
    sa.Column("confidence", sa.Float, nullable=False),
    sa.Column("release", sa.Text, nullable=False),
    sa.Column("encoder", sa.String(64), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    _of_image(),
    sa.Index(None, "project_id", "image_id", "created_at"),
)

logged_picks = _table(  # which picture somebody chose in earlier work, imported
    "logged_picks",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("set_id", sa.String(32), primary_key=True),
    sa.Column("image_id", sa.String(32), nullable=False),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    _of_set(),
    _in_set("image_id"),
)

logged_crops = _table(  # which part of a picture somebody kept in earlier work, imported
    "logged_crops",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("image_id", sa.String(32), primary_key=True),
    *_box(),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    _of_image(),
)

sampling_windows = _table(
    "sampling_windows",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("ends_at", UTCDateTime, nullable=False),
    sa.Column("frame", sa.Integer, nullable=False),  # pictures in the frame
    sa.Column("drawn", sa.Integer, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("project_id", "ends_at"),
    sa.UniqueConstraint("project_id", "id"),
)

inclusions = _table(  # with which probability a picture entered a queue, drawn or not
    "inclusions",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("image_id", sa.String(32), primary_key=True),
    sa.Column("queue", sa.String(32), primary_key=True),
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("drawn", sa.Boolean, nullable=False),
    sa.Column("window_id", sa.Integer),
    sa.Column("at", UTCDateTime, nullable=False),
    _of_image(),
    sa.ForeignKeyConstraint(["project_id", "window_id"], ["sampling_windows.project_id", "sampling_windows.id"]),
)

tasks = _table(
    "tasks",
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("image_id", sa.String(32)),  # None: it asks about a set
    sa.Column("set_id", sa.String(32)),
    sa.Column("queue", sa.String(32), nullable=False),
    sa.Column("reason", sa.String(16)),  # of a set, and of the crop of its best: random | least_sure
    sa.Column("prediction_id", sa.String(32)),  # which answer it asks about; None: the picture's newest
    sa.Column("probability", sa.Float, nullable=False),
    sa.Column("user_feedback", sa.Text),
    sa.Column("user_label", sa.Text),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("delivered_at", UTCDateTime),  # its file lies in S3
    sa.Column("synced_at", UTCDateTime),  # Label Studio has read the file
    sa.Column("withdrawn_at", UTCDateTime),  # nobody needs an answer any more; it goes at the next sync
    _of_image(),
    _of_set(),
    sa.ForeignKeyConstraint(["project_id", "prediction_id"], ["predictions.project_id", "predictions.id"]),
    sa.CheckConstraint("(image_id IS NULL) <> (set_id IS NULL)", name="ck_tasks_one_subject"),
    sa.UniqueConstraint("project_id", "image_id", "queue"),
    sa.UniqueConstraint("project_id", "set_id", "queue"),
    sa.UniqueConstraint("project_id", "id"),
    sa.Index(None, "project_id", "queue", "image_id"),
    sa.Index(None, "project_id", "prediction_id"),
)

leftovers = _table(  # of the tasks of removed pictures: what Label Studio and the store may still have
    "leftovers",
    sa.Column("task_id", sa.String(36), primary_key=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("queue", sa.String(32), nullable=False),
    sa.Column("annotations", sa.JSON, nullable=False),  # Label Studio's ids of those that were collected
    sa.Index(None, "project_id", "queue"),
)

outbox = _table(  # what was promised in a transaction and is still to be done outside it
    "outbox",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column(
        "kind", sa.String(16), nullable=False
    ),  # predict | suggest | propose | deliver | tidy | remove | forget | track
    sa.Column("ref", sa.String(128), nullable=False),  # the id of a prediction, a set or a task; a picture's place
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("not_before", UTCDateTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text),
    sa.Column("done_at", UTCDateTime),
    sa.UniqueConstraint("kind", "ref"),
    sa.Index(None, "done_at", "not_before"),
)

annotations = _table(  # every version of every answer; the newest of (task, annotator) counts
    "annotations",
    sa.Column("annotation_id", sa.String(32), primary_key=True),  # Label Studio's
    sa.Column("answered_at", UTCDateTime, primary_key=True),
    sa.Column("project_id", sa.String(40), nullable=False),
    sa.Column("task_id", sa.String(36), nullable=False),
    sa.Column("annotator", sa.Text, nullable=False),
    sa.Column("state", sa.String(10), nullable=False),  # answered | unknown | none | skipped | withdrawn | refused
    sa.Column("label", sa.Text),  # a class, the picture that is best, or a box as JSON
    sa.Column("reason", sa.Text),  # why it was refused
    sa.Column("seconds", sa.Float),  # how long the annotator looked
    sa.Column("collected_at", UTCDateTime, nullable=False),
    sa.ForeignKeyConstraint(["project_id", "task_id"], ["tasks.project_id", "tasks.id"]),
    sa.Index(None, "project_id", "task_id"),
)

imported_answers = _table(
    "imported_answers",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("image_id", sa.String(32), primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    _of_image(),
)

collected_objects = _table(  # what was read from labelstudio/output, so that nothing is read twice
    "collected_objects",
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("problem", sa.Text),
    sa.Column("at", UTCDateTime, nullable=False),
)

label_studio_projects = _table(
    "label_studio_projects",
    sa.Column("project_id", sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("queue", sa.String(32), primary_key=True),
    sa.Column("ls_project", sa.Integer, nullable=False),
    sa.Column("reconciled_to", UTCDateTime),
    sa.Column("answers_seen", sa.BigInteger),  # the greatest number of an annotation that its API has shown
)

datasets = _table(
    "datasets",
    sa.Column("project_id", sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("head", sa.String(32), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("items", sa.Integer, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
)

dataset_sets = _table(  # what a ranker learnt
    "dataset_sets",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("dataset_id", sa.String(16), primary_key=True),
    sa.Column("set_id", sa.String(32), primary_key=True),
    sa.Column("label", sa.String(32), nullable=False),  # the picture that was best
    _of_set(),
    sa.ForeignKeyConstraint(["project_id", "dataset_id"], ["datasets.project_id", "datasets.id"]),
    sa.Index(None, "project_id", "set_id"),
)

dataset_items = _table(
    "dataset_items",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("dataset_id", sa.String(16), primary_key=True),
    sa.Column("image_id", sa.String(32), primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    _of_image(),
    sa.ForeignKeyConstraint(["project_id", "dataset_id"], ["datasets.project_id", "datasets.id"]),
    sa.Index(None, "project_id", "image_id"),
)

feature_parts = _table(  # Parquet files with what was computed once of pictures, per encoder
    "feature_parts",
    sa.Column("project_id", sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("encoder", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),  # vector | look | grid
    sa.Column("created_at", UTCDateTime, nullable=False),
)

feature_pictures = _table(  # which part has a picture
    "feature_pictures",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("encoder", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(8), primary_key=True),
    sa.Column("image_id", sa.String(32), primary_key=True),
    sa.Column("part_id", sa.String(32), nullable=False),
    _of_image(),
    sa.ForeignKeyConstraint(
        ["project_id", "encoder", "part_id"],
        ["feature_parts.project_id", "feature_parts.encoder", "feature_parts.id"],
    ),
    sa.Index(None, "project_id", "image_id"),
    sa.Index(None, "project_id", "encoder", "part_id"),
)

releases = _table(
    "releases",
    sa.Column("project_id", sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("head", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("dataset_id", sa.String(16), nullable=False),
    sa.Column("encoder", sa.String(64), nullable=False),
    sa.Column("state", sa.String(9), nullable=False),  # candidate | live | retired | refused
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("card", sa.JSON, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("went_live_at", UTCDateTime),
    sa.ForeignKeyConstraint(["project_id", "dataset_id"], ["datasets.project_id", "datasets.id"]),
    sa.UniqueConstraint("project_id", "head", "number"),
    sa.Index(
        "ix_releases_one_live",
        "project_id",
        "head",
        unique=True,
        sqlite_where=sa.text("state = 'live'"),
        postgresql_where=sa.text("state = 'live'"),
    ),
)

shared_datasets = _table(  # datasets of other projects that a release learnt from, beside its own
    "shared_datasets",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("head", sa.String(32), primary_key=True),
    sa.Column("release_id", sa.String(32), primary_key=True),
    sa.Column("of_project_id", sa.String(40), primary_key=True),
    sa.Column("dataset_id", sa.String(16), nullable=False),
    sa.ForeignKeyConstraint(
        ["project_id", "head", "release_id"], ["releases.project_id", "releases.head", "releases.id"]
    ),
    sa.ForeignKeyConstraint(["of_project_id", "dataset_id"], ["datasets.project_id", "datasets.id"]),
    sa.Index(None, "of_project_id", "dataset_id"),
)

pins = _table(  # the release of a head that stays live, whatever candidates come
    "pins",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("head", sa.String(32), primary_key=True),
    sa.Column("release_id", sa.String(32), nullable=False),
    sa.Column("by", sa.Text, nullable=False),  # an account's address, or "command line"
    sa.Column("at", UTCDateTime, nullable=False),
    sa.ForeignKeyConstraint(
        ["project_id", "head", "release_id"], ["releases.project_id", "releases.head", "releases.id"]
    ),
)

installation = _table(
    "installation",
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.JSON, nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
)

leases = _table(  # who does a job that must not be done twice at once; `fence` grows with every new holder
    "leases",
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("holder", sa.String(32), nullable=False),
    sa.Column("fence", sa.Integer, nullable=False),
    sa.Column("expires_at", UTCDateTime, nullable=False),
)

catalogue = _table(  # what the list of pictures filters and sorts by: derived, one row per picture that is there
    "catalogue",
    sa.Column("project_id", sa.String(40), primary_key=True),
    sa.Column("image_id", sa.String(32), primary_key=True),
    sa.Column("arrived_at", UTCDateTime, nullable=False),
    sa.Column("label", sa.Text),  # the newest answer
    sa.Column("confidence", sa.Float),
    sa.Column("flagged", sa.Boolean, nullable=False),
    sa.Column("user_label", sa.Text),
    sa.Column("answer", sa.Text),  # what annotators settled, or an import said
    sa.Column("answered", sa.Boolean, nullable=False),  # whether there is an `answer`
    sa.Column("disagrees", sa.Boolean, nullable=False),  # the newest answer and `answer`
    _of_image(),
    sa.Index("ix_catalogue_arrived", "project_id", "arrived_at", "image_id"),
    sa.Index("ix_catalogue_confidence", "project_id", "confidence", "image_id"),
    sa.Index("ix_catalogue_label_arrived", "project_id", "label", "arrived_at", "image_id"),
    sa.Index("ix_catalogue_label_confidence", "project_id", "label", "confidence", "image_id"),
    sa.Index("ix_catalogue_label_answer_arrived", "project_id", "label", "answer", "arrived_at", "image_id"),
    sa.Index("ix_catalogue_flagged_arrived", "project_id", "flagged", "arrived_at", "image_id"),
    sa.Index("ix_catalogue_flagged_confidence", "project_id", "flagged", "confidence", "image_id"),
    sa.Index("ix_catalogue_disagrees_arrived", "project_id", "disagrees", "arrived_at", "image_id"),
    sa.Index("ix_catalogue_answered_arrived", "project_id", "answered", "arrived_at", "image_id"),
    sa.Index("ix_catalogue_answer_arrived", "project_id", "answer", "arrived_at", "image_id"),
)

surveys = _table(  # the dashboard's numbers, counted by the sampler so that the page need not count
    "surveys",
    sa.Column("project_id", sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),  # how long counting took
    sa.Column("body", sa.JSON, nullable=False),
)

manifest_changes = _table(
    "manifest_changes",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Column("by", sa.Text, nullable=False),  # an account's address, or "command line"
    sa.Column("before", sa.JSON),  # None: the project was made
    sa.Column("after", sa.JSON, nullable=False),
    sa.Index(None, "project_id", "id"),
)

accounts = _table(
    "accounts",
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),  # in lower case
    sa.Column("password", sa.Text, nullable=False),  # argon2
    sa.Column("everywhere", sa.Boolean, nullable=False),  # owner of every project, of those to come too
    sa.Column("created_at", UTCDateTime, nullable=False),
)

memberships = _table(
    "memberships",
    sa.Column("project_id", sa.ForeignKey("projects.id"), primary_key=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("role", sa.String(8), nullable=False),  # owner | viewer
    sa.Column("at", UTCDateTime, nullable=False),
    sa.Index(None, "account_id"),
)

sessions = _table(  # who is signed in; the cookie holds what `digest` is the digest of
    "sessions",
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("expires_at", UTCDateTime, nullable=False),
    sa.Index(None, "account_id"),
)

api_tokens = _table(
    "api_tokens",
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("account_id", sa.ForeignKey("accounts.id"), nullable=False),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Index(None, "account_id"),
)

invitations = _table(
    "invitations",
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("project_id", sa.ForeignKey("projects.id"), nullable=False),
    sa.Column("role", sa.String(8), nullable=False),  # visitor (as often as one likes) | viewer | owner (once)
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("created_at", UTCDateTime, nullable=False),
    sa.Column("expires_at", UTCDateTime, nullable=False),
    sa.Index(None, "project_id"),
)

rates = _table(  # how often somebody did something, counted in windows of equal length
    "rates",
    sa.Column("key", sa.String(120), primary_key=True),
    sa.Column("starts_at", UTCDateTime, primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Index(None, "starts_at"),
)

job_runs = _table(  # when a scheduled job last ran to its end
    "job_runs",
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("ran_at", UTCDateTime, nullable=False),
)
