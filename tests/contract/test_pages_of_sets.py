"""The pages of a selection project: what a visitor, a viewer and an owner see, and what its settings keep."""

import datetime as dt
import re
import uuid
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import httpx
import pytest
import yaml

from closedloop import accounts, catalogue, crops, survey, tasks
from closedloop import project as projects
from closedloop.project import CROPPER, RANKER, Project
from closedloop.queues import CROP, SELECTION
from closedloop.storage import answers, registry, surveys, tables
from closedloop.storage import sets as rows
from tests import choosing
from tests.choosing import Site
from tests.conftest import START

Make = Callable[..., bytes]
JSON = {"Accept": "application/json"}
PETS = "{id: pets, title: 'Cat or dog?', kind: classification, classes: [cat, dog]}"
DATED = """
{id: dated, title: Dated, kind: selection, ask: {random_share: 0.25, least_sure: 7}, learn_together: false,
 dates: {began: 2024-01-01T00:00:00Z, ended: 2024-06-30T00:00:00Z}, random_sample: {at_least: 3}}
"""
GATE = {
    "passed": True, "rule": "better in the mean", "against": "picking by chance", "basis": "all answers",
    "measure": "share of the others that the chosen picture beats", "candidate": 0.81, "baseline": 0.5, "look": 1,
    "needed": None, "answers": 120, "right_candidate": None, "right_baseline": None, "only_candidate_right": None,
    "only_baseline_right": None, "probability_better": 0.998, "probability_needed": None, "difference": 0.31,
    "difference_above": 0.22, "error": 0.03, "method": "The Bayesian bootstrap.", "reason": "better: 0.810 for 0.500",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with choosing.site(tmp_path_factory.mktemp("pages-of-sets")) as running:
        for manifest in (PETS, DATED):
            projects.add(running.stores, projects.parse_manifest(manifest), START)
        yield running


@pytest.fixture(scope="module")
def owner(site: Site) -> Iterator[httpx.Client]:
    """The owner of everything, by a token."""
    token = accounts.make_token(site.stores, accounts.find(site.stores, choosing.OWNER), "test", START)
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
    with httpx.Client(base_url=site.pages, timeout=30, trust_env=False, headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
def visitor(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.pages, timeout=30, trust_env=False, headers={"Accept": "text/html"}) as client:
        yield client


@pytest.fixture(scope="module")
def sent(site: Site, visitor: httpx.Client, picture: Make) -> dict[str, Any]:
    """A set that the visitor sent; people chose its first picture, and cropped the one that was suggested."""
    files = [("file", (f"{n}.png", picture(70_000 + n, (400, 300)))) for n in range(3)]
    said = visitor.post("/p/covers/sets", files=files, headers=JSON).json()
    pick = {"project_id": "covers", "set_id": said["set_id"], "image_id": said["image_ids"][0], "session": "s"}
    with site.stores.db.write() as tx:
        rows.add_pick(tx, {**pick, "at": START})
        task = tasks.ask(tx, "covers", said["best"], CROP, START, probability=0.1, reason="random")
        answer = {
            "annotation_id": "7", "answered_at": START, "project_id": "covers", "task_id": task, "annotator": "4",
            "state": "answered", "label": crops.Box(0.1, 0.2, 0.9, 0.8).as_text(), "reason": None, "seconds": 1.0,
            "collected_at": START,
        }  # fmt: skip
        answers.add_annotation(tx, answer)
        catalogue.refresh(tx, "covers", said["best"])
    return said


@pytest.fixture(scope="module")
def releases(site: Site) -> dict[str, list[str]]:
    """Two releases of each head, the second live."""
    made: dict[str, list[str]] = {}
    for head, measure in ((RANKER, GATE["measure"]), (CROPPER, "mean overlap (IoU)")):
        for number in (1, 2):
            made.setdefault(head, []).append(add_release(site, head, number, measure))
    return made


def add_release(site: Site, head: str, number: int, measure: Any) -> str:
    release, dataset = f"r{number:04d}-{head[:1] * 8}", uuid.uuid4().hex[:16]
    said = {"mean_confidence": 0.6, "best_suggested": 0.7, "log_loss": 0.8} if head == RANKER else {
        "mean_confidence": 0.7, "confidence_error": 0.05, "overlap_of_half": 0.9, "baselines": {"whole picture": 0.48}
    }  # fmt: skip
    card = {
        "release": release, "project": "covers", "head": head, "created_at": START.isoformat(),
        "encoder": {"name": "embedded", "digest": "e" * 64},
        "dataset": {"id": dataset, "digest": "0" * 64, "items": 120, "pictures": 400, "per_class": {},
                    "per_queue": {"import": {"answers": 100, "value": 0.8}, SELECTION: {"answers": 20, "value": 0.75}}},
        "recipe": {"kind": "linear", "l2": 0.01}, "seed": 7, "cross_validation": {"folds": 5, "losses": {}},
        "metrics": {"measured_on": "its own dataset", "measure": measure, "value": 0.68, "value_95": [0.61, 0.74],
                    "interval": "Bayesian bootstrap", "answers": 120, **said},
        "gate": {**GATE, "measure": measure}, "made_with": {"python": "3"},
        "temperature": 1.2, "learnt_together_with": [{"project": "dated", "dataset": "x", "digest": "y"}],
    }  # fmt: skip
    row = {"project_id": "covers", "head": head, "id": release, "number": number, "dataset_id": dataset, "card": card}
    frozen = {"project_id": "covers", "id": dataset, "head": head, "digest": "0" * 64, "items": 120}
    state = "retired" if number == 1 else "live"
    with site.stores.db.write() as tx:
        tx.execute(tables.datasets.insert().values(**frozen, created_at=START))
        registry.add_release(tx, {**row, "encoder": "e" * 64, "state": state, "reason": "better", "created_at": START})
        tx.execute(
            tables.releases.update().where(tables.releases.c.id == release).values(went_live_at=START, state=state)
        )
    return release


def told(answer: httpx.Response, status: int = 200) -> str:
    """The text of a page, without its tags."""
    assert answer.status_code == status, answer.text[:500]
    body = re.sub(r"<(script|style).*?</\1>", " ", answer.text[answer.text.index("<main") :], flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


# The page on which one sends


def test_the_page_says_what_to_send_and_that_nothing_was_sent(site: Site) -> None:
    for path in ("/", "/p/covers/"):
        page = told(httpx.get(site.pages + path, trust_env=False))
        assert "2 to 12 pictures among which to choose" in page
        assert "No picture is chosen yet." in page
        assert "What you send appears here" in page


def test_without_a_ranker_a_plain_sentence_says_so(site: Site, visitor: httpx.Client) -> None:
    site.inference.ranks = False
    page = told(visitor.get("/p/covers/"))
    site.inference.ranks = True
    assert "No model chooses yet." in page
    site.inference.away = True
    page = told(visitor.get("/p/covers/"))
    site.inference.away = False
    assert "2 to 12 pictures" in page


def test_the_best_is_marked_by_words_and_its_crop_is_drawn(
    site: Site, visitor: httpx.Client, sent: dict[str, Any]
) -> None:
    answer = visitor.get("/p/covers/")
    page, number = told(answer), sent["image_ids"].index(sent["best"]) + 1
    assert f"Picture {number} is the best." in page
    assert "71 % sure that a person chooses it." in page
    assert f"Picture {number} Best" in page
    assert {f"place {n}" for n in (2, 3)} <= set(re.findall(r"place \d", page))
    assert "expected overlap with what a person keeps: 64 %" in page
    assert "20 – 75 % of the width, 10 – 90 % of the height" in page
    assert 'viewBox="0 0 400 300"' in answer.text
    assert "M80.0 30.0V270.0H300.0V30.0Z" in answer.text
    assert "style=" not in answer.text  # which the policy would stop
    assert "People’s choice" not in page  # that is for members


def test_a_member_is_told_what_people_chose(owner: httpx.Client, sent: dict[str, Any]) -> None:
    assert "People’s choice" in told(owner.get(f"/sets/{sent['set_id']}"))


# The dashboard


def test_a_dashboard_waits_for_its_first_count(site: Site, owner: httpx.Client) -> None:
    assert "being counted for the first time" in told(owner.get("/p/dated/dashboard"))


def test_a_dashboard_without_releases_says_how_one_comes(site: Site, owner: httpx.Client) -> None:
    survey.take(site.stores, projects.get(site.stores, "dated"), now())
    page = told(owner.get("/p/dated/dashboard"))
    assert "The first ranker is trained when annotators, or imports, have said of 20 sets" in page
    assert "The first crop proposer is trained" in page
    assert "closedloop import-selections dated FILE.csv" in page
    assert "Best of a set selection" in page
    assert "Class by class" not in page
    assert "accuracy" not in page


def test_a_dashboard_shows_each_head_by_its_own_measure(
    site: Site, owner: httpx.Client, sent: dict[str, Any], releases: dict[str, list[str]]
) -> None:
    body = {**survey.take(site.stores, projects.get(site.stores, "covers"), now()), "sets": 31, "picked": 12}
    with site.stores.db.write() as tx:
        surveys.keep(tx, "covers", now(), 0.1, body)
    page = told(owner.get("/p/covers/dashboard"))
    for said in (
        "How well is the best picture chosen? 68 %",
        "Measure: share of the others that the chosen picture beats, on answers that the head had not seen.",
        "How well is it cropped? 68 %",
        "Measure: mean overlap (IoU)",
        "Between 61 % and 74 % (95 %).",
        "picking by chance 50 %",
        "Sets 31",
        "Sets whose best is known 12",
        "Crop of the best crop 0 1",
    ):
        assert said in page
    assert page.count("Roll back …") == 2
    assert "Week by week" not in page


def test_each_head_is_rolled_back_by_itself(
    site: Site, owner: httpx.Client, sent: dict[str, Any], releases: dict[str, list[str]]
) -> None:
    survey.take(site.stores, projects.get(site.stores, "covers"), now())
    forms = re.findall(r'name="live" value="([^"]+)">\s*<input type="hidden" name="head" value="([^"]+)"',
                       owner.get("/p/covers/dashboard").text)  # fmt: skip
    assert forms == [(releases[head][1], head) for head in (RANKER, CROPPER)]
    answer = owner.post("/p/covers/rollback", data={"head": CROPPER, "live": releases[CROPPER][1]}, headers=JSON)
    assert answer.json() == {"ok": True, "retired": releases[CROPPER][1], "live": releases[CROPPER][0]}
    with site.stores.db.read() as tx:
        live = {row["head"]: row["id"] for row in registry.live_releases(tx)}
    assert live == {RANKER: releases[RANKER][1], CROPPER: releases[CROPPER][0]}


def test_tables_that_mean_nothing_for_sets_are_not_there(site: Site, owner: httpx.Client) -> None:
    for table, status in (("days", 200), ("queues", 200), ("weeks", 404), ("classes", 404), ("releases", 404)):
        assert owner.get(f"/p/covers/dashboard/{table}.json", headers=JSON).status_code == status
        assert owner.get(f"/p/covers/dashboard/{table}.csv", headers=JSON).status_code == status
    assert owner.post("/p/covers/sample", headers=JSON).json()["code"] == "wrong_kind"


@pytest.mark.parametrize("head", [RANKER, CROPPER])
def test_a_release_is_shown_by_its_measure(owner: httpx.Client, releases: dict[str, list[str]], head: str) -> None:
    page = told(owner.get(f"/p/covers/releases/{head}/{releases[head][0]}"))
    assert "68 % between 61 % and 74 % (95 %), on 120 answers" in page
    assert "Mean: this one 81.0 %" in page
    assert "Mean: picking by chance 50.0 %" in page
    assert "Learnt together with dated" in page
    assert "By class" not in page
    assert "imported 100 80 %" in page
    assert ("Overlap of half or more 90.0 %" in page) == (head == CROPPER)
    card = owner.get(f"/p/covers/releases/{head}/{releases[head][0]}/card.json").json()
    assert card["metrics"]["value"] == 0.68


# The pictures


def test_the_list_of_pictures_has_no_classes(owner: httpx.Client, sent: dict[str, Any]) -> None:
    answer = owner.get("/p/covers/images")
    assert all(id_ in answer.text for id_ in sent["image_ids"])
    for name in ("label", "answer", "flagged", "disagrees", "at_least"):
        assert f'name="{name}"' not in answer.text
    page = told(answer)
    assert "no answer yet" not in page
    assert "ImageFolder" not in page
    asked = owner.get("/p/covers/images?queue=crop", headers=JSON).json()["pictures"]
    assert [one["image_id"] for one in asked] == [sent["best"]]
    assert set(asked[0]) == {"image_id", "arrived_at", "url"}
    lines = owner.get("/p/covers/images.csv").text.splitlines()
    assert lines[0] == "image_id,arrived_at"
    assert len(lines) == 4


@pytest.mark.parametrize("query", ["label=cat", "queue=selection", "queue=random_sample", "order=least-sure"])
def test_a_filter_that_sets_do_not_know_is_said(owner: httpx.Client, query: str) -> None:
    assert owner.get(f"/p/covers/images?{query}", headers=JSON).json()["code"] == "bad_request"
    assert owner.get(f"/p/covers/images?{query}").status_code == 400


def test_pictures_of_sets_are_no_folders_of_classes(owner: httpx.Client) -> None:
    answer = owner.get("/p/covers/images.zip", headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_kind")


def test_a_picture_tells_of_its_sets_and_its_crop(owner: httpx.Client, sent: dict[str, Any]) -> None:
    answer = owner.get(f"/p/covers/images/{sent['best']}")
    page = told(answer)
    edges = "10 – 90 % of the width, 20 – 80 % of the height"
    assert f"People would keep: {edges}." in page
    assert f"Annotator 4 would keep: {edges} (Crop of the best)." in page
    assert "A model would keep: 20 – 75 % of the width" in page
    assert "A model suggests it as the best." in page
    assert f"/sets/{sent['set_id']}" in answer.text
    assert "[0.1" not in page  # no raw JSON
    assert "M40.0 60.0V240.0H360.0V60.0Z" in answer.text
    other = told(owner.get(f"/p/covers/images/{next(i for i in sent['image_ids'] if i != sent['best'])}"))
    assert "People have not settled which part of it to keep." in other
    said = owner.get(f"/p/covers/images/{sent['best']}", headers=JSON).json()
    assert said["sets"] == [sent["set_id"]]
    assert said["crop"] == {"x1": 0.1, "y1": 0.2, "x2": 0.9, "y2": 0.8}


# Projects


def fields_of(page: str) -> dict[str, str]:
    """The form of a project as a browser would send it back."""
    form = page[page.index('<form class="card stack"') :]
    form = form[: form.index("</form>")]
    found: dict[str, str] = {}
    for tag in re.findall(r"<input [^>]*>", form):
        known = dict(re.findall(r'(\w+)="([^"]*)"', tag))
        if known.get("type") not in ("radio", "checkbox") or " checked" in tag:
            found[known["name"]] = unescape(known.get("value", ""))
    for name, text in re.findall(r'<textarea [^>]*name="(\w+)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        found[name] = unescape(text)
    return found


@pytest.mark.parametrize("id_", ["dated", "covers", "pets"])
def test_saving_the_form_untouched_changes_nothing(site: Site, owner: httpx.Client, id_: str) -> None:
    before = projects.get(site.stores, id_)
    fields = fields_of(owner.get(f"/p/{id_}/settings").text)
    assert owner.post(f"/p/{id_}/settings", data=fields).status_code == 303
    assert projects.get(site.stores, id_) == before


def test_what_a_form_does_not_show_is_kept(site: Site, owner: httpx.Client) -> None:
    pets = projects.get(site.stores, "pets")
    entries = {"ask": {"random_share": 0.5, "least_sure": 3}, "learn_together": False, "dates": {"began": START}}
    projects.add(site.stores, Project.model_validate({**pets.model_dump(), **entries}), START)
    for id_ in ("pets", "dated"):
        before = projects.get(site.stores, id_)
        fields = {**fields_of(owner.get(f"/p/{id_}/settings").text), "title": "Another title"}
        assert owner.post(f"/p/{id_}/settings", data=fields).status_code == 303
        assert projects.get(site.stores, id_) == before.model_copy(update={"title": "Another title"})
    assert "Its pictures were taken" in told(owner.get("/p/dated/settings"))


def test_a_selection_is_changed_by_its_own_fields(site: Site, owner: httpx.Client) -> None:
    page = owner.get("/p/covers/settings")
    assert 'name="classes"' not in page.text
    assert 'name="prompts"' not in page.text
    fields = {**fields_of(page.text), "ask_random_share": "0.3", "ask_least_sure": "5"}
    del fields["learn_together"]  # as a browser sends an empty box
    assert owner.post("/p/covers/settings", data=fields).status_code == 303
    changed = projects.get(site.stores, "covers")
    assert (changed.ask.random_share, changed.ask.least_sure, changed.learn_together) == (0.3, 5, False)
    fields["learn_together"] = "True"
    owner.post("/p/covers/settings", data=fields)
    assert projects.get(site.stores, "covers").learn_together is True


@pytest.mark.parametrize(
    ("field", "typed"),
    [("ask_random_share", "7"), ("ask_random_share", "often"), ("ask_least_sure", "-1"), ("ask_least_sure", "1001"),
     ("learn_together", "perhaps"), ("train_cron", "now")],
)  # fmt: skip
def test_what_is_wrong_is_said_beside_its_field(site: Site, owner: httpx.Client, field: str, typed: str) -> None:
    before = projects.get(site.stores, "covers")
    fields = {**fields_of(owner.get("/p/covers/settings").text), field: typed}
    answer = owner.post("/p/covers/settings", data=fields)
    assert answer.status_code == 422
    assert f'id="{field}-fault"' in answer.text
    assert projects.get(site.stores, "covers") == before


def test_a_project_of_either_kind_is_made_on_the_page(site: Site, owner: httpx.Client) -> None:
    for kind, more in (("selection", {}), ("classification", {"classes": "a\nb"})):
        page = owner.get("/projects/new", params={"kind": kind})
        fields = {**fields_of(page.text), "id": f"new-{kind}", "title": "New", **more}
        assert fields["kind"] == kind
        answer = owner.post("/projects/new", data=fields)
        assert answer.status_code == 303, answer.text
        assert projects.get(site.stores, f"new-{kind}").kind == kind
    assert 'name="kind" value="classification"' in owner.get("/projects/new").text
    for answer in (
        owner.get("/projects/new?kind=triplets", headers=JSON),
        owner.post("/projects/new", data={"kind": "triplets"}, headers=JSON),
    ):
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "the best of each set" in told(owner.get("/projects"))
    manifest = yaml.safe_load(owner.get("/p/new-selection/manifest.yaml").text)
    assert (manifest["kind"], manifest["classes"]) == ("selection", [])


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
