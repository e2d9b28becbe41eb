"""The loop of a selection project, once: sets -> picks and crops by annotators -> ranker and proposer -> suggestions.

From outside only, on the stack as `make run` starts it; the people are those of `make demo`.
"""

import json

import httpx
import numpy as np
import pytest

from demo.installation import CHECKOUT, Installation
from demo.people import logged_in
from demo.scenes import PROJECT, Choosers, Photographer
from tests.waiting import wait_for

SETS, NEW, PATIENCE = 50, 16, 180


def serving(installation: Installation) -> dict[str, str | None]:
    """Head -> the release that answers."""
    said = httpx.get(f"{installation.inference}/v1/releases", timeout=30, trust_env=False).json()["releases"]
    return {row["head"]: row["release"] for row in said if row["project"] == PROJECT}


@pytest.mark.timeout(900)
def test_sets_teach_a_ranker_and_a_crop_proposer(installation: Installation) -> None:
    installation.command("project", "add", str(CHECKOUT / "projects" / f"{PROJECT}.yaml"))
    secrets = installation.secrets
    photographer = Photographer(installation.pages, seed=5)
    studio = logged_in(secrets["LABEL_STUDIO_URL"], secrets["LABEL_STUDIO_API_KEY"])
    choosers = Choosers(studio, photographer.shots, seed=5)

    # Nobody can suggest anything yet; every set is kept.
    assert {photographer.send().right for _ in range(SETS)} == {None}

    # Annotators pick and crop; the trainer makes both heads by itself, and inference serves them.
    def both_serve() -> bool:
        choosers.answer()
        return set(serving(installation)) == {"ranker", "cropper"} and None not in serving(installation).values()

    wait_for(both_serve, PATIENCE, "a ranker and a crop proposer")
    new = [photographer.send() for _ in range(NEW)]
    assert None not in {one.right for one in new}
    right = sum(bool(one.right) for one in new)
    assert right >= 9, f"only {right} of {NEW} right; chance gives 6"
    overlaps = [one.overlap for one in new if one.overlap is not None]
    assert len(overlaps) == NEW
    assert np.mean(overlaps) > 0.4  # the whole picture gives 0.15

    # Each release is what its card says, and can be made again.
    rows = installation.command("releases", PROJECT)["releases"]
    for head, release in serving(installation).items():
        (row,) = [one for one in rows if (one["head"], one["release"]) == (head, release)]
        assert row["value_95"][0] <= row["value"] <= row["value_95"][1]
        assert row["gate"]["passed"]
        assert installation.command("reproduce", f"{PROJECT}/{head}/{release}")["same"]
        [told] = installation.command("lineage", f"{PROJECT}/{head}/{release}")["lineage"]
        assert told["annotators"]
        assert installation.command("lineage", told["annotations"][0])["lineage"][0]["datasets"]
    assert json.dumps(rows)
