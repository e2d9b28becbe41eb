"""Which project a row belongs to: exactly one, or none with the reason."""

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import ClosedloopError, FitsNoProject, FitsTwoProjects, MixedSet, OfAnotherProject
from closedloop.importing.assignment import ByFolderAndTime, Lasting, OneProject
from closedloop.importing.paths import Found
from closedloop.project import Dates, Project


def day(number: int) -> dt.datetime:
    return dt.datetime(2025, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=number)


def lasting(id_: str, title: str, began: int, ended: int | None) -> Lasting:
    dates = Dates(began=day(began), ended=None if ended is None else day(ended))
    return Lasting(Project(id=id_, title=title, kind="selection", dates=dates), frozenset({id_, title}))


def files(*names: str) -> list[Found]:
    return [Found(name, Path(name), name.split("/")[0] if "/" in name else None, 1, 1) for name in names]


EARLIER = ByFolderAndTime(
    [
        lasting("mojo1", "Mojo", 0, 10),
        lasting("mojo2", "Mojo", 10, 20),
        lasting("mojo10", "Ten", 0, None),
        lasting("late", "unknown", 0, None),
    ]
)


@pytest.mark.parametrize(
    ("names", "at", "id_"),
    [
        (["mojo1/a.png", "mojo1/b/c.png"], 0, "mojo1"),
        (["mojo1/a.png"], 10, "mojo1"),
        (["Mojo/a.png"], 5, "mojo1"),
        (["Mojo/a.png"], 15, "mojo2"),
        (["Mojo/a.png", "mojo2/a.png"], 15, "mojo2"),
        (["mojo10/a.png"], 4000, "mojo10"),
        (["Ten/mojo1/a.png"], 1, "mojo10"),
    ],
)
def test_the_first_folder_and_the_time_say_which(names: list[str], at: int, id_: str) -> None:
    assert EARLIER.project_of("s1", files(*names), day(at)).id == id_


@pytest.mark.parametrize(
    ("names", "at", "error", "said"),
    [
        (["mojo/a.png"], 5, FitsNoProject, 'folder "mojo" fits no project'),
        (["mojo100/a.png"], 5, FitsNoProject, "exactly"),
        (["MOJO1/a.png"], 5, FitsNoProject, "exactly"),
        (["mojo1 /a.png"], 5, FitsNoProject, "exactly"),
        (["mojo1/a.png"], 11, FitsNoProject, "from 2025-01-01T00:00:00Z to 2025-01-11T00:00:00Z"),
        (["mojo10/a.png"], -1, FitsNoProject, "from 2025-01-01T00:00:00Z on"),
        (["a.png"], 5, FitsNoProject, '"a.png" lies in no folder'),
        (["unknown/a.png"], 5, FitsNoProject, "unknown is no project"),
        (["Unknown/a.png"], 5, FitsNoProject, "unknown is no project"),
        (["mojo1/a.png", "unknown/a.png"], 5, FitsNoProject, "unknown is no project"),
        (["Mojo/a.png"], 10, FitsTwoProjects, '"mojo1" and "mojo2"'),
        (["mojo1/a.png", "mojo10/a.png"], 5, MixedSet, 'of "mojo1" and of "mojo10"'),
        (["mojo1/a.png", "mojo2/a.png"], 5, MixedSet, 'of "mojo1" and of "mojo2"'),
        (["Mojo/a.png", "Ten/a.png"], 5, MixedSet, 'of "mojo1" and of "mojo10"'),
        (["mojo2/a.png", "Mojo/a.png"], 5, FitsNoProject, "not in its time"),
    ],
)
def test_what_fits_none_or_two_is_refused_and_says_why(
    names: list[str], at: int, error: type[ClosedloopError], said: str
) -> None:
    with pytest.raises(error) as caught:
        EARLIER.project_of("s1", files(*names), day(at))
    assert said in str(caught.value)


ONE = OneProject(Project(id="mojo1", title="Mojo", kind="selection"), frozenset({"mojo10", "mojo2"}))


def test_one_project_has_everything_but_what_lies_in_the_folder_of_another() -> None:
    assert ONE.project_of("s1", files("a.png", "mojo1/b.png", "mojo/c.png", "unknown/d.png"), day(0)).id == "mojo1"
    with pytest.raises(MixedSet, match='"mojo1" and of "mojo10"'):
        ONE.project_of("s1", files("mojo1/a.png", "mojo10/a.png"), day(0))
    with pytest.raises(MixedSet, match='"mojo2" and of "mojo10"'):
        ONE.project_of("s1", files("mojo2/a.png", "mojo10/a.png"), day(0))
    with pytest.raises(OfAnotherProject, match='"mojo10", and this is "mojo1"'):
        ONE.project_of("s1", files("mojo10/a.png"), day(0))


NAMES = st.sampled_from(["mojo1", "mojo10", "Mojo", "mojo", "unknown", "ten"])
IDS = st.sampled_from(["mojo1", "mojo10", "ten"])
SPANS = st.tuples(st.integers(0, 6), st.one_of(st.none(), st.integers(0, 6)))


@given(
    described=st.dictionaries(IDS, st.tuples(NAMES, SPANS), max_size=3),
    folders=st.lists(NAMES, min_size=1, max_size=3),
    at=st.integers(0, 8),
)
def test_a_set_is_given_a_project_only_if_every_folder_alone_fits_it_and_no_other(
    described: dict[str, tuple[str, tuple[int, int | None]]], folders: list[str], at: int
) -> None:
    def fitting(folder: str) -> set[str]:
        return {
            id_
            for id_, (title, (began, length)) in described.items()
            if folder in (id_, title)
            and folder != "unknown"
            and began <= at
            and (length is None or at <= began + length)
        }

    assignment = ByFolderAndTime(
        lasting(id_, title, began, None if length is None else began + length)
        for id_, (title, (began, length)) in described.items()
    )
    wanted = [fitting(folder) for folder in folders]
    try:
        given_ = {assignment.project_of("s", files(*(f"{folder}/a.png" for folder in folders)), day(at)).id}
    except ClosedloopError:
        given_ = set()
    alone = len(wanted[0]) == 1 and all(one == wanted[0] for one in wanted)
    assert given_ == (wanted[0] if alone else set())
