"""A project's manifest: classes, thresholds, queues, schedule. Two projects' pictures never meet."""

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from closedloop.errors import ClassesChanged, ManifestFaults, UnknownClass, UnknownHead, UnknownProject, WrongKind
from closedloop.queues import CLASSIFICATION_QUEUES, SELECTION_QUEUES
from closedloop.schedule import parse_cron
from closedloop.storage import Stores, installation

CLASSIFICATION, SELECTION = "classification", "selection"
CLASSIFIER, RANKER, CROPPER = "classifier", "ranker", "cropper"
HEADS = {CLASSIFICATION: (CLASSIFIER,), SELECTION: (RANKER, CROPPER)}  # what learns in a project of each kind
EXAMPLES = Path(__file__).parents[2] / "projects"  # of a checkout, or of the image built from one
COMMAND_LINE = "command line"
NAMED = 20  # classes that an error names
UNKNOWN = "unknown"  # what an annotator answers who cannot tell; no class and no project may be called so


def _is_cron(text: str) -> str:
    parse_cron(text)
    return text


def _is_plain(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise ValueError("has spaces at its ends or characters that cannot be printed")
    return text


Cron = Annotated[str, AfterValidator(_is_cron)]
ClassName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_is_plain)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thresholds(_Part):
    """Below which confidence (0-1) a picture is asked about."""

    low_confidence: float = Field(default=0.7, ge=0, le=1)


class RandomSample(_Part):
    """The daily random sample: a share of the pictures that came, but at least so many."""

    share: float = Field(default=0.05, ge=0, le=1)
    at_least: int = Field(default=20, ge=0)
    cron: Cron = "0 3 * * *"


class Sync(_Part):
    """When tasks go to Label Studio and annotations come back."""

    cron: Cron = "* * * * *"


class Train(_Part):
    """When the trainer looks, and how many new answers it wants."""

    at_least_new: int = Field(default=20, ge=1)
    cron: Cron = "* * * * *"


class Gate(_Part):
    """When a candidate goes live: surely enough better than the live release, or surely not worse by a margin."""

    policy: Literal["better", "not_worse"] = "better"
    probability_better: float = Field(default=0.9, ge=0.5, lt=1)
    margin: float = Field(default=0.02, ge=0, le=0.5)  # of accuracy


class Ask(_Part):
    """Which sets annotators are asked about: a random share of all that come, and besides the least sure ones."""

    random_share: float = Field(default=0.1, ge=0, le=1)
    least_sure: int = Field(default=20, ge=0, le=1000)  # so many of them wait for an answer at a time


class Dates(_Part):
    """When a project's pictures were taken; `ended` None: it goes on. Imports of earlier work look here."""

    began: dt.datetime
    ended: dt.datetime | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Dates":
        if self.began.tzinfo is None or (self.ended and self.ended.tzinfo is None):
            raise ValueError("a moment needs its zone, as in 2026-01-31T00:00:00Z")
        if self.ended and self.ended < self.began:
            raise ValueError("it ends before it begins")
        return self


class Project(_Part):
    """One project. Only id, title and kind have no default, and the classes of a classification."""

    id: str
    title: str = Field(min_length=1, max_length=200)
    kind: Literal["classification", "selection"]
    access: Literal["public", "closed"] = "public"
    classes: tuple[ClassName, ...] = Field(default=(), max_length=1000, validate_default=True)
    prompts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    thresholds: Thresholds = Thresholds()
    random_sample: RandomSample = RandomSample()
    ask: Ask = Ask()
    learn_together: bool = True  # its picks may teach other projects' rankers, and theirs its own
    dates: Dates | None = None
    sync: Sync = Sync()
    train: Train = Train()
    gate: Gate = Gate()

    @field_validator("id")
    @classmethod
    def _id_is_short(cls, id_: str) -> str:
        if not re.fullmatch(r"[a-z0-9-]{3,40}", id_):
            raise ValueError("an id has 3 to 40 of the characters a-z, 0-9 and -")
        if id_ == UNKNOWN:
            raise ValueError(f'no project may be called "{UNKNOWN}"')
        return id_

    @field_validator("title")
    @classmethod
    def _title_is_plain(cls, title: str) -> str:
        return _is_plain(title)

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        if others.data.get("kind") == CLASSIFICATION and len(classes) < 2:
            raise PydanticCustomError("too_short", "a classification has two classes or more", {"min_length": 2})
        if others.data.get("kind") == SELECTION and classes:
            raise ValueError("a selection has no classes")
        if doubled := [name for name, count in Counter(name.casefold() for name in classes).items() if count > 1]:
            raise ValueError(f"two classes have the same name: {', '.join(doubled)}")
        if UNKNOWN in (name.casefold() for name in classes):
            raise ValueError(f'no class may be called "{UNKNOWN}": annotators answer it when they cannot tell')
        return classes

    @model_validator(mode="after")
    def _prompts_are_for_classes(self) -> "Project":
        if strangers := set(self.prompts) - set(self.classes):
            raise ValueError(f"prompts for what is no class: {', '.join(sorted(strangers))}")
        return self

    @property
    def queues(self) -> Sequence[str]:
        """The queues in which its pictures can be asked about."""
        return CLASSIFICATION_QUEUES if self.kind == CLASSIFICATION else SELECTION_QUEUES

    @property
    def heads(self) -> Sequence[str]:
        """What learns from its answers."""
        return HEADS[self.kind]

    def check_head(self, head: str | None) -> str:
        """The head of this name, or the only one where none is named; raises UnknownHead."""
        if head is None and len(self.heads) == 1:
            return self.heads[0]
        if head is None or head not in self.heads:
            raise UnknownHead(project=self.id, head=head or "without a name", heads=", ".join(self.heads))
        return head

    def check_kind(self, kind: str) -> None:
        """Raise WrongKind unless it is of this kind."""
        if self.kind != kind:
            raise WrongKind(project=self.id, kind=self.kind, wanted=kind)

    def check_label(self, label: str) -> str:
        """The label, if it is a class of this project; raises UnknownClass."""
        if label not in self.classes:
            few = self.classes if len(self.classes) <= NAMED else (*self.classes[:NAMED], "…")
            raise UnknownClass(label=label[:100], project=self.id, classes=", ".join(few))
        return label


@dataclass(frozen=True)
class Change:
    """A change of a manifest: when, by whom, and of each entry what it was and what it became."""

    at: dt.datetime
    by: str
    entries: tuple[tuple[str, str, str], ...]


def parse_manifest(text: str, file: str = "the manifest") -> Project:
    """Check a manifest (YAML); raises ManifestFaults, which names each fault with its line."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ManifestFaults(file=file, faults=f"{where}{getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise ManifestFaults(file=file, faults="it is nested too deep") from None
    if not isinstance(content, dict):
        raise ManifestFaults(file=file, faults="line 1: it must be a mapping with id, title and kind")
    try:
        return Project.model_validate(content)
    except ValidationError as error:
        faults = [
            f"line {_line_of(root, fault['loc'])}: {'.'.join(map(str, fault['loc'])) or 'manifest'}: "
            f"{fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise ManifestFaults(file=file, faults="; ".join(faults)) from None


def _line_of(node: Any, path: Sequence[str | int]) -> int:
    """The line of the deepest node on a path that the file has."""
    for step in path:
        if isinstance(node, yaml.MappingNode):
            inner = next((value for key, value in node.value if key.value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            inner = node.value[step]
        else:
            inner = None
        if inner is None:
            break
        node = inner
    return node.start_mark.line + 1 if node else 1


def add(stores: Stores, project: Project, now: dt.datetime, by: str = COMMAND_LINE) -> None:
    """Make a project, or change its manifest; a change is kept with who made it.

    Raises ClassesChanged unless its classes were only appended to, WrongKind where it was of another kind.
    """
    with stores.db.write() as tx:
        former = installation.project_manifest(tx, project.id, lock=True)
        before = Project.model_validate(former) if former else None
        if before == project:
            return
        if before and before.kind != project.kind:
            raise WrongKind(project=project.id, kind=before.kind, wanted=project.kind)
        if before and project.classes[: len(before.classes)] != before.classes:
            raise ClassesChanged(project=project.id, old=", ".join(before.classes), new=", ".join(project.classes))
        installation.save_project(tx, project.id, project.model_dump(mode="json"), now, by)


def changes(stores: Stores, project_id: str) -> list[Change]:
    """What was changed in a project's manifest, by whom, the newest first."""
    with stores.db.read() as tx:
        rows = installation.manifest_changes(tx, project_id)
    return [Change(row["at"], row["by"], tuple(_differences(row["before"] or {}, row["after"]))) for row in rows]


def _differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(entry, before, after) of each entry that differs, as YAML writes it."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from _differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif before != after:
        yield path, _as_yaml(before), _as_yaml(after)


def _as_yaml(value: Any) -> str:
    if value is None:
        return ""
    text = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def add_file(stores: Stores, path: Path, now: dt.datetime) -> Project:
    """Make or change the project that a manifest file describes; raises ManifestFaults or ClassesChanged."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestFaults(file=path, faults=f"it cannot be read ({error})") from None
    project = parse_manifest(text, str(path))
    add(stores, project, now)
    return project


def make_first(stores: Stores, project_id: str, now: dt.datetime) -> str | None:
    """Make the example project of this id where there is no project at all; returns its id if it was made."""
    path = EXAMPLES / f"{project_id}.yaml"
    if all_projects(stores) or not path.exists():
        return None
    return add_file(stores, path, now).id


def get(stores: Stores, project_id: str) -> Project:
    """One project; raises UnknownProject."""
    with stores.db.read() as tx:
        manifest = installation.project_manifest(tx, project_id)
    if manifest is None:
        raise UnknownProject(project=project_id[:40])
    return Project.model_validate(manifest)


def all_projects(stores: Stores) -> list[Project]:
    """Every project, oldest first."""
    with stores.db.read() as tx:
        return [Project.model_validate(manifest) for manifest in installation.project_manifests(tx)]
