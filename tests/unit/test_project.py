"""Manifests: the defaults, and each fault with its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import ClosedloopError, ManifestFaults, UnknownClass
from closedloop.project import Project, parse_manifest

GOOD = """\
id: pets
title: Cat or dog?
kind: classification
classes:
  - cat
  - dog
"""


def faults(text: str) -> str:
    with pytest.raises(ManifestFaults) as caught:
        parse_manifest(text, "pets.yaml")
    return str(caught.value)


def test_four_entries_are_enough_and_the_rest_is_as_documented():
    project = parse_manifest(GOOD)
    assert project.thresholds.low_confidence == 0.7
    assert (project.random_sample.share, project.random_sample.at_least, project.random_sample.cron) == (
        0.05,
        20,
        "0 3 * * *",
    )
    assert project.sync.cron == project.train.cron == "* * * * *"
    assert project.train.at_least_new == 20
    assert list(project.queues) == ["random_sample", "low_confidence", "user_feedback", "user_label"]


@pytest.mark.parametrize(
    ("change", "line", "word"),
    [
        (("id: pets", "id: Pets!"), 1, "id"),
        (("id: pets", "id: ab"), 1, "id"),
        (("kind: classification", "kind: detection"), 3, "kind"),
        (("  - dog", "  - cat"), 5, "same name"),
        (("  - dog", "  - unknown"), 5, "unknown"),
        (("  - dog", "  - ' dog'"), 6, "spaces"),
        (("  - dog", "  - 7"), 6, "string"),
        (("  - dog\n", "  - dog\nthresholds:\n  low_confidence: 1.5\n"), 8, "less than or equal"),
        (("  - dog\n", "  - dog\nsync: {cron: 'every day'}\n"), 7, "five fields"),
        (("  - dog\n", "  - dog\nsync: {cron: '0 3 * * 1'}\n"), 7, "mon"),
        (("  - dog\n", "  - dog\nprompts: {bird: [a bird]}\n"), 1, "bird"),
        (("  - dog\n", "  - dog\nthreshold: 1\n"), 7, "threshold"),
    ],
)
def test_each_fault_is_named_with_its_line(change, line, word):
    said = faults(GOOD.replace(*change))
    assert said.startswith("pets.yaml")
    assert f"line {line}:" in said
    assert word in said


def test_two_faults_are_both_named():
    said = faults(GOOD.replace("id: pets", "id: Pets").replace("kind: classification", "kind: x"))
    assert "line 1:" in said
    assert "line 3:" in said


@pytest.mark.parametrize(
    "text",
    ["", "- a\n- b", "id: [", "a: b: c", "\x00", "&a [*a]", "!!python/object/apply:os.system ['true']", "[" * 50_000],
)
def test_what_is_no_manifest_is_said_to_be_none(text):
    faults(text)


@given(st.text(max_size=200))
def test_no_text_crashes_the_parser(text):
    try:
        parse_manifest(text)
    except ClosedloopError as error:
        assert error.status == 422  # noqa: PT017


def test_a_label_of_no_class_is_refused_with_the_classes():
    project = parse_manifest(GOOD)
    assert project.check_label("cat") == "cat"
    with pytest.raises(UnknownClass, match="cat, dog"):
        project.check_label("<script>alert(1)</script>")


def test_a_manifest_survives_the_records():
    project = parse_manifest(GOOD)
    assert Project.model_validate(project.model_dump(mode="json")) == project


def test_a_change_names_the_entries_that_differ() -> None:
    from closedloop.project import _differences

    before = parse_manifest(GOOD).model_dump(mode="json")
    after = parse_manifest(GOOD.replace("title: ", "title: New ")).model_dump(mode="json")
    assert [entry for entry, _, _ in _differences(before, after)] == ["title"]
    assert list(_differences(before, before)) == []
    assert {"id", "classes", "thresholds"} <= {entry for entry, _, _ in _differences({}, after)}
