"""`make secrets` and the reading of `.env`."""

import re
import stat
from pathlib import Path

import pytest

from closedloop.settings import GENERATED, Settings, env_example, generated
from scripts import urls
from scripts.env_file import read_env
from scripts.make_secrets import MARK, main, wanted_names

SECRETS = {name.upper() for name in filter(generated, Settings.model_fields)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".env.example").write_text(env_example())
    (tmp_path / ".env").write_text(env_example())
    return tmp_path


def values(folder: Path) -> dict[str, str]:
    return read_env((folder / ".env").read_text())


def test_env_files_are_read_as_docker_compose_reads_them() -> None:
    text = """# NO=1
A=#x
B=a#b
C=a # b
D="q # r" # s
E='q # r' # s
F=a=b==
G = spaced
H=
"""  # what `docker compose config` 2.26 made of it
    expected = {"A": "#x", "B": "a#b", "C": "a", "D": "q # r", "E": "q # r", "F": "a=b==", "G": "spaced", "H": ""}
    assert read_env(text) == expected


def test_every_secret_is_made_once_and_is_different(folder: Path) -> None:
    assert main(folder) == 0
    first = values(folder)
    made = {name: first[name] for name in SECRETS}
    assert len(set(made.values())) == len(made) >= 12
    assert min(map(len, made.values())) >= 20
    assert len(first["LABEL_STUDIO_API_KEY"]) <= 40
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    assert main(folder) == 0
    assert values(folder) == first


def test_what_is_there_is_never_changed(folder: Path) -> None:
    text = re.sub(r"(?m)^POSTGRES_PASSWORD=$", "POSTGRES_PASSWORD='my own # one' # kept", env_example())
    text = re.sub(r"(?m)^MINIO_ROOT_PASSWORD=$", 'MINIO_ROOT_PASSWORD="" # to be made', text)
    text = re.sub(r"(?m)^S3_SECRET_WEB=$\n", "", text) + "MINE=1\n"
    (folder / ".env").write_text(text)
    before = read_env(text)
    assert main(folder) == 0
    after = values(folder)
    assert {name: after[name] for name, value in before.items() if value} == {n: v for n, v in before.items() if v}
    assert after["POSTGRES_PASSWORD"] == "my own # one"
    assert len(after["MINIO_ROOT_PASSWORD"]) == 48
    assert len(after["S3_SECRET_WEB"]) == 48
    assert "# kept" in (folder / ".env").read_text()


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_env_that_cannot_be_read_is_said_plainly(
    folder: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is None:
        (folder / ".env").unlink()
    else:
        (folder / ".env").write_bytes(content)
    assert main(folder) == 1
    assert "Copy .env.example to .env" in capsys.readouterr().err


def test_the_mark_is_the_settings_own() -> None:
    assert MARK == GENERATED
    assert set(wanted_names(env_example())) == SECRETS


def test_urls_without_docker_is_said_plainly(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert urls.main(folder) == 1
    assert "Docker is not installed" in capsys.readouterr().err
