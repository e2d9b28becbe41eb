"""Every text stands in one place: what templates and code ask for is there, and nothing there is unused."""

import re
from pathlib import Path

import pytest
from flask_app.texts import catalogue, error_text, text

from closedloop.queues import CLASSIFICATION_QUEUES

PAGES = Path(__file__).parents[2] / "services" / "flask_app"
TEMPLATES = sorted((PAGES / "templates").glob("*.html"))
# Texts whose names are put together: by queue, by state, by field and so on.
PUT_TOGETHER = ("queues", "states", "settings", "errors", "base", "people", "images.order_", "image", "dashboard")
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
