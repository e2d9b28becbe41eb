"""Every text stands in one place: what templates and code ask for is there, and nothing there is unused."""

import re
from pathlib import Path

import pytest
from flask_app.texts import catalogue, error_text, fault_text, text
from pydantic import ValidationError

from closedloop.project import Project
from closedloop.queues import CLASSIFICATION_QUEUES

PAGES = Path(__file__).parents[2] / "services" / "flask_app"
TEMPLATES = sorted((PAGES / "templates").glob("*.html"))
# Texts whose names are put together: by queue, by state, by field and so on.
PUT_TOGETHER = (
    *("queues", "states", "settings", "errors", "faults", "base", "people"),
    *("images.order_", "image", "dashboard", "release", "heads"),
)
_MACROS = re.compile(
    r"\{% macro (?:post|bad|state)\(.*?endmacro %\}|\{% block width %\}wide", re.DOTALL
)  # attributes alone
_JINJA = re.compile(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
_TAGS = re.compile(r"<[^>]*>")


def asked_for() -> set[str]:
    sources = [path.read_text() for path in [*TEMPLATES, *PAGES.glob("*.py")]]
    return {
        name
        for source in sources
        for name in re.findall(r"""\b(?:t|text)\(\s*["']([a-z_]+\.[a-z_]*[a-z])["']""", source)
    }


def test_every_text_that_is_asked_for_is_there() -> None:
    names = asked_for()
    assert len(names) > 100
    assert names <= set(catalogue())
    for queue in CLASSIFICATION_QUEUES:
        assert text(f"queues.{queue}")


def test_no_text_is_left_over() -> None:
    unused = {name for name in set(catalogue()) - asked_for() if not name.startswith(PUT_TOGETHER)}
    assert unused == set()


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_templates_hold_no_words_of_their_own(template: Path) -> None:
    bare = _TAGS.sub(" ", _JINJA.sub("", _MACROS.sub("", template.read_text())))
    assert re.findall(r"[A-Za-z]{2,}", bare) == []
    attributes = re.findall(
        r"""\b(?:alt|title|aria-label|placeholder)=["']([^"'{]*[A-Za-z][^"']*)["']""", template.read_text()
    )
    assert attributes == []


def test_a_page_says_an_error_in_its_own_words_where_it_has_some() -> None:
    assert error_text("unknown_project", "…", project="x") == "There is no project “x” here."
    assert error_text("weak_password", "A password has 12 characters.") == "A password has 12 characters."


def test_no_error_text_of_a_page_names_a_command() -> None:
    assert [name for name, said in catalogue().items() if name.startswith("errors.") and "`" in said] == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"title": ""}, "This may not be empty."),
        ({"title": "x" * 201}, "At most 200 characters."),
        ({"classes": ["cat"]}, "At least 2, one a line."),
        ({"classes": [str(n) for n in range(1001)]}, "At most 1000."),
        ({"thresholds": {"low_confidence": "7"}}, "At most 1."),
        ({"thresholds": {"low_confidence": "-1"}}, "At least 0."),
        ({"thresholds": {"low_confidence": ""}}, "This is not a number."),
        ({"thresholds": {"low_confidence": "nan"}}, "At most 1."),
        ({"random_sample": {"at_least": "some"}}, "This is not a whole number."),
        ({"random_sample": {"at_least": "1.5"}}, "This is not a whole number."),
        ({"access": "secret"}, "Choose one of them."),
        ({"id": "no such id"}, "An id has 3 to 40 of the characters a-z, 0-9 and -"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_in_our_words(entries: dict, said: str) -> None:
    right = {"id": "pets", "title": "Pets", "kind": "classification", "classes": ["cat", "dog"]}
    with pytest.raises(ValidationError) as caught:
        Project.model_validate({**right, **entries})
    assert said in [fault_text(fault) for fault in caught.value.errors()]
