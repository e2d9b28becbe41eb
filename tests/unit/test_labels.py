"""Which votes count, and what they settle."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from closedloop import labels
from closedloop.votes import Vote

T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def vote(annotator: str, label: str, minute: int = 0, image: str = "a" * 32) -> Vote:
    return Vote(image, annotator, label, "low_confidence", 1.0, T0 + dt.timedelta(minutes=minute))


def row(
    annotation: str, annotator: str, label: str | None, minute: int, state: str = "answered", task: str = "t1"
) -> dict:
    return {
        "annotation_id": annotation,
        "annotator": annotator,
        "label": label,
        "state": state,
        "task_id": task,
        "image_id": "a" * 32,
        "queue": "low_confidence",
        "probability": 1.0,
        "answered_at": T0 + dt.timedelta(minutes=minute),
    }


def said(rows: list[dict]) -> list[str]:
    return sorted(v.answer for v in labels.newest_votes(rows))


def test_the_majority_settles_and_a_tie_waits():
    assert labels.settle([vote("1", "cat"), vote("2", "dog"), vote("3", "cat")])[0] == "cat"
    assert labels.settle([vote("1", "cat"), vote("2", "dog")])[0] is None
    assert labels.settle([])[0] is None


def test_an_annotator_has_one_vote_a_picture_the_newest():
    assert labels.settle([vote("1", "cat", 0), vote("1", "dog", 5), vote("1", "cat", 2)])[0] == "dog"
    assert labels.settle([vote("1", "cat", 0), vote("1", "cat", 1), vote("2", "dog", 0)])[0] is None


def test_an_edited_annotation_counts_once_with_its_newest_version():
    assert said([row("7", "1", "cat", 0), row("7", "1", "dog", 3)]) == ["dog"]


def test_who_skips_after_answering_takes_the_answer_back():
    assert said([row("7", "1", "cat", 0), row("7", "1", None, 3, "skipped")]) == []
    assert said([row("7", "1", "cat", 0), row("8", "1", None, 3, "unknown")]) == []


def test_a_withdrawn_annotation_never_was_so_the_one_before_counts():
    assert said([row("7", "1", "cat", 0), row("8", "1", "dog", 3), row("8", "1", None, 4, "withdrawn")]) == ["cat"]


def test_label_studio_may_count_its_annotations_anew():
    assert said([row("1", "1", "cat", 0, task="t1"), row("1", "1", "dog", 3, task="t2")]) == ["cat", "dog"]


def test_answers_of_two_annotators_both_count():
    assert said([row("7", "1", "cat", 0), row("8", "2", "dog", 3)]) == ["cat", "dog"]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 5),
            st.integers(1, 3),
            st.sampled_from(["cat", "dog"]),
            st.integers(0, 30),
            st.sampled_from(["answered", "skipped", "withdrawn", "refused"]),
        ),
        max_size=20,
    ),
    st.randoms(),
)
def test_the_order_of_collection_does_not_matter(entries, shuffler):
    rows = [
        row(str(a), str(a % who), label, 100 * i + minute, state)
        for i, (a, who, label, minute, state) in enumerate(entries)
    ]
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    key = lambda v: (v.annotator, v.at)  # noqa: E731
    assert sorted(labels.newest_votes(rows), key=key) == sorted(labels.newest_votes(shuffled), key=key)
