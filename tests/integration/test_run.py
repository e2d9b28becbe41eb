"""`closedloop run` as a person meets it: what stands in its way, how it ends, and that it comes back."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from demo.installation import CHECKOUT, CLOSEDLOOP, PARTS, Installation, free_ports
from demo.people import label_studio_projects
from tests.integration.stack import Loop, processes
from tests.waiting import wait_for

Make = Callable[..., bytes]
COUNT = 6  # parts


def environment(home: Path) -> dict[str, str]:
    """The environment of an installation on free ports."""
    ports = zip(PARTS, free_ports(len(PARTS)), strict=True)
    named = {f"CLOSEDLOOP_{name}_PORT": str(port) for name, port in ports}
    return {**os.environ, "CLOSEDLOOP_HOME": str(home), "CLOSEDLOOP_ENCODER": "embedded", **named}


def refused(env: dict[str, str]) -> str:
    """Run `closedloop run`, which must end at once by itself; returns what it says."""
    done = subprocess.run([CLOSEDLOOP, "run"], env=env, cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    said = (done.stdout + done.stderr).strip()
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1, said
    return said


class TestRefusals:
    @pytest.mark.parametrize(("part", "setting"), [("WEB", "WEB"), ("S3", "S3"), ("LABEL_STUDIO", "LABEL_STUDIO")])
    def test_a_port_in_use(self, tmp_path: Path, part: str, setting: str) -> None:
        env = environment(tmp_path / "home")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", int(env[f"CLOSEDLOOP_{part}_PORT"])))
            taken.listen()
            said = refused(env)
        assert f"CLOSEDLOOP_{setting}_PORT" in said
        assert env[f"CLOSEDLOOP_{part}_PORT"] in said
        assert processes(tmp_path / "home") == []

    def test_a_second_run_on_the_same_home(self, installation: Installation) -> None:
        said = refused(installation.env)
        assert "already runs" in said
        assert str(installation.home) in said

    def test_a_folder_that_cannot_be_written(self) -> None:
        assert "CLOSEDLOOP_HOME" in refused(environment(Path("/proc/closedloop")))


class Run:
    """A `closedloop run` in a session of its own, as in a terminal."""

    def __init__(self, env: dict[str, str], output: Path) -> None:
        self.home, self.output = Path(env["CLOSEDLOOP_HOME"]), output
        with output.open("w") as file:
            self.process = subprocess.Popen(
                [CLOSEDLOOP, "run"], env=env, cwd=CHECKOUT, stdout=file, stderr=file, start_new_session=True
            )

    def wait_parts(self) -> None:
        """Until every part was started (not: until it is ready)."""
        wait_for(self.parts, 60, "every part was started")

    def parts(self) -> list[int]:
        """The processes of the parts, once all are there."""
        words = ("serve s3", "label", "-m inference_api", "-m flask_app", "-m sampler", "-m trainer")
        found = [processes(self.home, word) for word in words]
        return [pids[0] for pids in found] if all(found) else []

    def wait_ready(self, seconds: float) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.output.read_text()
            return "End with Ctrl-C" in self.output.read_text()

        wait_for(ready, seconds, "closedloop is ready")

    def leaves_nothing(self, seconds: float = 25) -> None:
        self.process.wait(timeout=seconds)
        wait_for(lambda: not processes(self.home), seconds, f"no process is left: {processes(self.home)}")


@pytest.fixture(scope="module")
def home(loop: Loop, tmp_path_factory: pytest.TempPathFactory, picture: Make) -> Path:
    """A copy of the running installation, with a picture in it."""
    loop.upload("food11", picture(770_077))
    place, copy = loop.installation.home, tmp_path_factory.mktemp("copy") / "home"
    shutil.copytree(place, copy, ignore=shutil.ignore_patterns("*.db*", "*.sqlite3*", "*.log", "run.lock"))
    for file in ("closedloop.db", "label-studio/label_studio.sqlite3"):
        source, target = sqlite3.connect(place / file, timeout=30), sqlite3.connect(copy / file)
        source.backup(target)
        source.close()
        target.close()
    return copy


@pytest.fixture
def begin(home: Path, tmp_path: Path) -> Iterator[Callable[[], Run]]:
    """Starts the copy; whatever is left of it ends with the test."""

    def run() -> Run:
        return Run(environment(home), tmp_path / "run.log")

    yield run
    for pid in processes(home):
        os.kill(pid, signal.SIGKILL)


def test_it_comes_back_and_ends_with_ctrl_c(loop: Loop, home: Path, begin: Callable[[], Run], picture: Make) -> None:
    run = begin()
    run.wait_ready(100)
    text = run.output.read_text()
    assert loop.installation.secrets["LABEL_STUDIO_PASSWORD"] in text  # whole: nothing in the table is cut off
    assert loop.installation.secrets["AWS_SECRET_ACCESS_KEY"] in text

    def secrets(place: Path) -> dict[str, str]:
        lines = (place / "secrets.env").read_text().splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines) if "URL" not in name}

    assert secrets(home) == secrets(loop.installation.home)
    assert ((home / "secrets.env").stat().st_mode & 0o777) == 0o600
    urls = dict(line.split("=", 1) for line in (home / "secrets.env").read_text().splitlines() if "_URL=" in line)
    token = {"Authorization": f"Token {secrets(home)['LABEL_STUDIO_API_KEY']}"}
    with httpx.Client(base_url=urls["LABEL_STUDIO_URL"], headers=token, timeout=30, trust_env=False) as studio:
        assert any(p["title"] == "food11 / random_sample" for p in label_studio_projects(studio))
    pages = next(word for word in text.split() if word.startswith("http://127.0.0.1") and word.count("/") == 2)
    files = {"file": ("picture.png", picture(770_077), "image/png")}
    said = httpx.post(
        f"{pages}/predict", files=files, headers={"Accept": "application/json"}, timeout=60, trust_env=False
    )
    assert said.status_code == 201
    with sqlite3.connect(home / "closedloop.db") as records:
        known = records.execute("SELECT count(*) FROM images WHERE id = ?", (said.json()["image_id"],)).fetchone()
        twice = records.execute(
            "SELECT count(*) FROM predictions WHERE image_id = ?", (said.json()["image_id"],)
        ).fetchone()
    records.close()
    assert (known, twice) == ((1,), (2,))  # the picture of before, and a new prediction about it

    os.killpg(run.process.pid, signal.SIGINT)  # Ctrl-C reaches the whole group
    run.leaves_nothing()
    assert run.process.returncode == 0
    assert "Everything has ended" in run.output.read_text()


def test_ctrl_c_before_anything_is_up(begin: Callable[[], Run]) -> None:
    run = begin()
    wait_for(lambda: "Starting 6 parts" in run.output.read_text(), 30, "it begins", every=0.01)
    os.killpg(run.process.pid, signal.SIGINT)
    run.leaves_nothing()
    assert "Traceback" not in run.output.read_text()


def test_killed_itself_it_leaves_no_orphan(begin: Callable[[], Run]) -> None:
    run = begin()
    run.wait_parts()
    run.process.kill()
    run.leaves_nothing()


def test_killed_with_all_its_helpers_it_leaves_no_orphan(begin: Callable[[], Run]) -> None:
    run = begin()
    run.wait_parts()
    os.killpg(run.process.pid, signal.SIGKILL)  # as `pkill -9 -f "closedloop run"` does
    run.leaves_nothing()


def test_a_closed_terminal_ends_everything(begin: Callable[[], Run]) -> None:
    run = begin()
    run.wait_parts()
    os.killpg(run.process.pid, signal.SIGHUP)
    run.leaves_nothing()


def test_a_helper_that_is_killed_ends_everything(begin: Callable[[], Run]) -> None:
    run = begin()
    run.wait_parts()
    (helper,) = {int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in run.parts()[3:4]}
    assert helper != run.process.pid
    os.kill(helper, signal.SIGKILL)
    run.leaves_nothing()
