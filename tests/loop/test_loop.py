"""The whole loop, once: upload -> answer -> flag -> annotators -> training -> gate -> a better answer -> the way back.

From outside only: HTTP, S3, Label Studio and the command line, on the stack as `make run` starts it.
"""

import json

import httpx
import pytest
import s3fs

from demo.installation import CHECKOUT, Installation, live_release, training_runs
from demo.people import Annotators, Visitor, digits, logged_in
from tests.waiting import wait_for

PICTURES, PATIENCE = 60, 90


@pytest.fixture(scope="module")
def bucket(installation: Installation) -> s3fs.S3FileSystem:
    own = installation.secrets
    return s3fs.S3FileSystem(
        key=own["AWS_ACCESS_KEY_ID"],
        secret=own["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=own["S3_ENDPOINT_URL"],
        use_listings_cache=False,
    )


@pytest.mark.timeout(600)
def test_the_loop_turns_once(installation, bucket):
    installation.command("project", "add", str(CHECKOUT / "projects" / "digits.yaml"))
    secrets = installation.secrets
    stream = digits(seed=3)
    visitor = Visitor(installation.pages, "digits", seed=3)
    studio = logged_in(secrets["LABEL_STUDIO_URL"], secrets["LABEL_STUDIO_API_KEY"])
    annotators = Annotators(studio, "digits", visitor.truths, seed=3)

    # Nobody knows anything yet: every picture is kept and asked about.
    sent = [visitor.send(*next(stream)) for _ in range(PICTURES)]
    assert {one.label for one in sent} == {None}
    stored = [key for key in bucket.find("production/digits") if key.endswith(".jpg")]
    assert sorted(key.rsplit("/", 1)[1][:32] for key in stored) == sorted({one.image_id for one in sent})

    # A visitor flags one and relabels another: a queue each, one task each, said twice or not.
    with httpx.Client(base_url=installation.pages, timeout=30, trust_env=False) as http:
        for _ in range(2):
            said = http.post("/feedback", json={"prediction_id": sent[0].prediction_id})
            assert said.json() == {"success": True, "message": "Thank you for your feedback!"}
            http.post(
                "/label", json={"prediction_id": sent[1].prediction_id, "label": sent[1].truth}
            ).raise_for_status()
    installation.command("sample", "digits")

    # Each reason becomes exactly one task file, and Label Studio gets them all.
    def tasks(queue: str) -> list[str]:
        return [k for k in bucket.find(f"labelstudio/tasks/digits/{queue}") if k.endswith(".json")]

    wait_for(lambda: len(tasks("low_confidence")) == PICTURES, PATIENCE, "delivery")
    wait_for(
        lambda: (len(tasks("user_feedback")), len(tasks("user_label"))) == (1, 1), PATIENCE, "delivery of feedback"
    )
    data = json.loads(bucket.cat_file(tasks("user_label")[0]))["data"]
    assert (data["image_id"], data["user_label"], data["queue"]) == (sent[1].image_id, sent[1].truth, "user_label")
    wait_for(lambda: annotators.sizes()["low_confidence"][0] == PICTURES, PATIENCE, "Label Studio's sync")

    # Annotators answer; what they said comes back, trains a release, and the gate lets it through.
    runs = training_runs(installation, "digits")
    assert annotators.answer(1000) >= PICTURES
    wait_for(lambda: training_runs(installation, "digits") > runs, PATIENCE, "training")
    live = wait_for(lambda: live_release(installation, "digits"), PATIENCE, "a release")

    # The answers are better now, and each names its release.
    later = [visitor.send(*next(stream)) for _ in range(40)]
    assert {one.release for one in later} <= {
        row["release"] for row in installation.command("releases", "digits")["releases"]
    }
    right = sum(one.label == one.truth for one in later)
    assert right >= 14, f"only {right} of 40 right; guessing gives 4"

    # The artefact is whole, and its card says what it rests on.
    folder = f"models/digits/classifier/{live}"
    names = {key.rsplit("/", 1)[1] for key in bucket.find(folder)}
    assert names == {"model.safetensors", "card.json", "MANIFEST.json"}
    card = json.loads(bucket.cat_file(f"{folder}/card.json"))
    assert card["gate"]["passed"]
    assert card["dataset"]["items"] >= 40
    frozen = bucket.cat_file(f"models/digits/datasets/{card['dataset']['id']}.jsonl").decode().splitlines()
    assert len(frozen) == card["dataset"]["items"] + 1
    items = [json.loads(line) for line in frozen[1:]]
    agreeing = sum(item["label"] == visitor.truths[item["image_id"]] for item in items)
    assert agreeing / len(items) > 0.85  # annotators are wrong one time in twenty

    # Training again without news changes nothing, and training it again from its dataset gives the same weights.
    assert installation.command("train", "digits")["released"]
    assert installation.command("reproduce", live)["same"]

    # From the release to a single annotation, and back; and it stays live while it is pinned.
    [told] = installation.command("lineage", live)["lineage"]
    assert (told["dataset"], len(told["pictures"])) == (card["dataset"]["id"], card["dataset"]["items"])
    [annotation] = installation.command("lineage", told["annotations"][0])["lineage"]
    assert {"release": live, "state": "live"} in annotation["datasets"][0]["releases"]
    assert installation.command("pin", "digits", live) == {"ok": True, "pinned": live, "retired": None}
    assert installation.command("unpin", "digits")["ok"]

    # How good it is in production: nobody knows before these pictures are drawn and answered.
    standing = installation.command("accuracy", "digits")["accuracy"]
    assert standing["all"]["pictures"] == len(later)
    installation.command("sample", "digits")

    def estimate():
        annotators.answer(1000)  # tasks come queue by queue
        return installation.command("accuracy", "digits")["accuracy"]["all"]["sample"]

    wait_for(estimate, PATIENCE, "an estimate from the random sample's answers")
