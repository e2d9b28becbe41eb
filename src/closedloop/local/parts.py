"""The parts of `make run`: what each is started with, and how to tell that it is ready."""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from closedloop.errors import CannotStart
from closedloop.settings import Settings

CHECKOUT = Path(__file__).parents[3]
LABEL_STUDIO_ENV = "CLOSEDLOOP_LABEL_STUDIO_ENV"  # where `make install` put Label Studio


@dataclass(frozen=True)
class Part:
    """One process: its command, environment, and the address that answers 200 when it is ready."""

    name: str
    command: str
    env: dict[str, str]
    port: int
    ready: str
    cwd: Path | None = None
    slow: bool = False  # its start takes a minute the first time


def parts(settings: Settings, secrets: dict[str, str]) -> list[Part]:
    """All parts of one machine. Raises CannotStart where a program is missing."""
    home, bind = settings.home, settings.closedloop_bind
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "LABEL_STUDIO_"))}
    ours = {
        **quiet,
        **secrets,
        "CLOSEDLOOP_HOME": str(home),
        "CLOSEDLOOP_UPLOADS_PER_MINUTE": "0",  # one machine, and people who know each other
        "PYTHONUNBUFFERED": "1",
    }
    for name in ("web", "inference", "sampler", "trainer"):
        field = f"closedloop_{name}_port"
        ours[field.upper()] = str(getattr(settings, field))
    python = shlex.quote(sys.executable)

    def service(name: str, module: str, port: int, path: str = "/readyz") -> Part:
        return Part(name, f"exec {python} -m {module}", ours, port, f"http://{settings.host}:{port}{path}")

    return [
        _objects(settings, quiet, secrets, bind),
        _label_studio(settings, quiet, secrets, bind),
        service("inference", "inference_api", settings.closedloop_inference_port),
        service("web", "flask_app", settings.closedloop_web_port),
        service("sampler", "sampler", settings.closedloop_sampler_port),
        service("trainer", "trainer", settings.closedloop_trainer_port),
    ]


def _objects(settings: Settings, env: dict[str, str], secrets: dict[str, str], bind: str) -> Part:
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if not rclone:
        raise CannotStart(problem="The program rclone is missing.", remedy="Run `make install`, which brings it.")
    folder = settings.home / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    port = settings.closedloop_s3_port
    # rclone reads this variable as a CSV list of "key,secret" pairs; in the environment no `ps` shows it.
    pair = f'"{secrets["AWS_ACCESS_KEY_ID"]},{secrets["AWS_SECRET_ACCESS_KEY"]}"'
    own = {**env, "RCLONE_AUTH_KEY": pair, "RCLONE_CONFIG": os.devnull}
    command = f"exec {shlex.quote(rclone)} serve s3 --addr {bind}:{port} --log-level NOTICE {shlex.quote(str(folder))}"
    return Part("objects", command, own, port, "")


def _label_studio(settings: Settings, env: dict[str, str], secrets: dict[str, str], bind: str) -> Part:
    place = Path(os.environ.get(LABEL_STUDIO_ENV) or CHECKOUT / ".venv-label-studio")
    python = place / "bin" / "python"
    package = next(iter(place.glob("lib/python3.*/site-packages/label_studio")), None)
    if not python.exists() or package is None:
        raise CannotStart(
            problem=f"Label Studio is not installed at {place}.", remedy="Run `make install`, which brings it."
        )
    data = settings.home / "label-studio"
    data.mkdir(parents=True, exist_ok=True)
    port = settings.closedloop_label_studio_port
    own = {
        **{name: value for name, value in env.items() if name not in ("DJANGO_DB", "VIRTUAL_ENV")},
        "LABEL_STUDIO_BASE_DATA_DIR": str(data),
        "LABEL_STUDIO_USERNAME": secrets["LABEL_STUDIO_USERNAME"],
        "LABEL_STUDIO_PASSWORD": secrets["LABEL_STUDIO_PASSWORD"],
        "LABEL_STUDIO_USER_TOKEN": secrets["LABEL_STUDIO_API_KEY"],
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # Storages are made without endpoint and keys: its own process has them, its records do not.
        "S3_ENDPOINT": secrets["S3_ENDPOINT_URL"],
        "AWS_ACCESS_KEY_ID": secrets["AWS_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": secrets["AWS_SECRET_ACCESS_KEY"],
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
        "PYTHONUNBUFFERED": "1",
    }
    # The first start migrates and makes user and token; Label Studio's records then hold them. Later starts skip it.
    made = shlex.quote(str(data / ".initialised"))
    init = f"{shlex.quote(str(place / 'bin' / 'label-studio'))} init -q </dev/null && touch {made}"
    serve = f"exec {shlex.quote(str(python))} -m waitress --listen={bind}:{port} --threads=8 core.wsgi:application"
    health = f"http://{settings.host}:{port}/health"
    return Part("labelstudio", f"test -e {made} || {{ {init}; }} && {serve}", own, port, health, package, slow=True)
