"""The best picture of a set: what several people's picks settle, which sets are asked about, which are alike."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from closedloop import queues, selections
from closedloop.selections import Item
from closedloop.training.ranker import groups_of_sets
from closedloop.votes import Vote

T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def vote(annotator: str, answer: str, minute: int = 0) -> Vote:
    return Vote("s" * 32, annotator, answer, "selection", 1.0, T0 + dt.timedelta(minutes=minute), reason="random")


def item(set_id: str, members: dict[str, str]) -> Item:
    return Item(set_id, members, next(iter(members)), ("1",), {}, (), True)


def test_most_picks_settle_and_a_tie_waits() -> None:
    assert selections.settle([vote("1", "a"), vote("2", "b"), vote("3", "a")])[0] == "a"
    assert selections.settle([vote("1", "a"), vote("2", "b")])[0] is None


def test_where_most_say_that_none_is_good_nothing_is_learnt() -> None:
    assert selections.settle([vote("1", ""), vote("2", ""), vote("3", "a")])[0] is None


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_draws_every_set_that_a_smaller_one_draws(one: float, other: float) -> None:
    ids = [f"{number:032x}" for number in range(200)]
    small, large = ({id_ for id_ in ids if queues.is_drawn(id_, share)} for share in sorted((one, other)))
    assert small <= large


def test_the_share_that_is_drawn_is_the_share() -> None:
    drawn = sum(queues.is_drawn(f"{number:032x}", 0.1) for number in range(20_000))
    assert 1_850 < drawn < 2_150  # 3.5 standard deviations
    assert not any(queues.is_drawn(f"{number:032x}", 0.0) for number in range(100))
    assert all(queues.is_drawn(f"{number:032x}", 1.0) for number in range(100))


def test_sets_that_share_a_picture_or_have_one_alike_are_one_group() -> None:
    far = ["0" * 16, "f" * 16, "00000000ffffffff", "ffffffff00000000", "0f" * 8, "f0" * 8]
    items = (
        item("1", {"a": far[0], "b": far[1]}),
        item("2", {"b": far[1], "c": far[2]}),  # shares b
        item("3", {"d": "00000000fffffffe", "e": far[3]}),  # d is like c
        item("4", {"f": far[4], "g": far[5]}),
    )
    groups = groups_of_sets(items).tolist()
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_an_item_survives_the_datasets_file() -> None:
    made = Item("s", {"b": "1", "a": "2"}, "a", ("1",), {"selection": 0.5}, ({"annotator": "1"},), False)
    assert Item.from_json(made.as_json()) == made
    assert list(Item.from_json(made.as_json()).members) == ["b", "a"]
