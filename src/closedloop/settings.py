"""One class, one documented table: every setting of every part. `.env.example` is generated from it."""

import re
from functools import cached_property
from pathlib import Path
from typing import Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from closedloop.errors import InvalidSetting, MissingSetting, WeakSecrets

GENERATED = "(make secrets)"  # marks in `.env.example` what `scripts/make_secrets.py` fills


Backend = Literal["auto", "openvino-fp32", "openvino-bf16", "openvino-int8", "torch-cpu", "torch-cuda", "torch-mps"]


class Settings(BaseSettings):
    """The settings of an installation. Secrets have no default: see `require`."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    closedloop_home: Path = Field(Path("var"), description="Folder of all state under `make run`.")
    closedloop_database_url: str = Field(
        "", description="SQLAlchemy URL of the records. Empty: SQLite in CLOSEDLOOP_HOME."
    )
    closedloop_default_project: str = Field("food11", description="The project that `GET /` shows.")
    closedloop_owner_email: str = Field(
        "owner@closedloop.local", description="The first account, owner of everything (an e-mail address)."
    )
    closedloop_owner_password: SecretStr = Field(
        SecretStr(""),
        description="That account's first password; afterwards: `closedloop account password`. Under `make run` made.",
    )
    closedloop_session_key: SecretStr = Field(
        SecretStr(""), description="Signs the pages' cookies and links. Under `make run` made by itself."
    )
    closedloop_uploads_per_minute: int = Field(
        120,
        ge=0,
        description=(
            "Pictures that a visitor may send in a minute, an address ten times as many; 0: any number. "
            "Under `make run` any number."
        ),
    )
    closedloop_proxies: int = Field(
        0,
        ge=0,
        description=(
            "Under `make run`: how many proxies stand before the pages, whose X-Forwarded-* headers are believed."
        ),
    )
    closedloop_encoder: str = Field(
        "auto",
        description=(
            "What turns pictures into vectors, at the first start: auto, embedded, openclip:NAME or "
            "openclip:NAME@FILE.safetensors. Afterwards: `closedloop encoder use NAME`."
        ),
    )
    closedloop_backend: Backend = Field(
        "auto",
        description=(
            "What computes the encoder in inference: auto takes what is measured to be the fastest here; or "
            "openvino-fp32, openvino-bf16, openvino-int8 (after `closedloop encoder quantize`), torch-cpu, torch-cuda, "
            "torch-mps."
        ),
    )
    closedloop_cache: Path = Field(
        Path("~/.cache/closedloop"),
        description="Folder for what can be made again: encoders as they were converted for this machine.",
    )
    closedloop_bind: str = Field("127.0.0.1", description="Address that every part listens on.")
    closedloop_web_port: int = Field(5000, description="Port of the pages.")
    closedloop_inference_port: int = Field(8000, description="Port of the inference service.")
    closedloop_sampler_port: int = Field(8001, description="Port of the sampler's /healthz and /metrics.")
    closedloop_trainer_port: int = Field(8002, description="Port of the trainer's /healthz and /metrics.")
    closedloop_label_studio_port: int = Field(8080, description="Port of Label Studio under `make run`.")
    closedloop_s3_port: int = Field(9000, description="Port of the S3 store under `make run`.")
    closedloop_inference_url: str = Field(
        "", description="Where the inference service answers. Empty: on this machine."
    )
    closedloop_inference_budget: float = Field(
        3.0, gt=0, description="Seconds that a page waits for an answer before the picture is kept for later."
    )
    closedloop_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG, INFO, WARNING or ERROR."
    )
    s3_endpoint_url: str = Field("", description="The S3 store of pictures, tasks and releases.")
    aws_access_key_id: str = Field(
        "", description="Its access key; in Docker the command line's, of 20 characters at most."
    )
    aws_secret_access_key: SecretStr = Field(SecretStr(""), description="Its secret key.")
    label_studio_url: str = Field("", description="Where Label Studio answers.")
    label_studio_username: str = Field(
        "admin@closedloop.local", description="Label Studio's first user (an e-mail address)."
    )
    label_studio_password: SecretStr = Field(SecretStr(""), description="That user's password.")
    label_studio_api_key: SecretStr = Field(SecretStr(""), description="That user's token, 40 characters at most.")
    closedloop_web_url: str = Field("", description="Where `doctor` finds the pages. Empty: on this machine.")
    closedloop_sampler_url: str = Field("", description="Where `doctor` finds the sampler. Empty: on this machine.")
    closedloop_trainer_url: str = Field("", description="Where `doctor` finds the trainer. Empty: on this machine.")
    # What only docker-compose.yaml reads. The checks of secrets know them from here, too.
    bind: str = Field("127.0.0.1", description="Address at which pages and Label Studio are published.")
    postgres_password: SecretStr = Field(SecretStr(""), description="Postgres' own password.")
    closedloop_db_password: SecretStr = Field(SecretStr(""), description="Password of the records' database.")
    label_studio_db_password: SecretStr = Field(SecretStr(""), description="Password of Label Studio's database.")
    minio_root_password: SecretStr = Field(SecretStr(""), description="MinIO's own password, for its set-up alone.")
    s3_secret_web: SecretStr = Field(SecretStr(""), description="Secret key of the pages in MinIO.")
    s3_secret_inference: SecretStr = Field(SecretStr(""), description="Secret key of inference in MinIO.")
    s3_secret_sampler: SecretStr = Field(SecretStr(""), description="Secret key of the sampler in MinIO.")
    s3_secret_trainer: SecretStr = Field(SecretStr(""), description="Secret key of the trainer in MinIO.")
    s3_secret_label_studio: SecretStr = Field(SecretStr(""), description="Secret key of Label Studio in MinIO.")
    grafana_password: SecretStr = Field(SecretStr(""), description="Password of Grafana's user admin.")
    label_studio_origins: str = Field(
        "",
        description="Label Studio's address in the browser where a proxy gives it another (https://labels.example.org).",
    )
    cpu: str = Field("", description="1: the images take PyTorch's CPU builds, 5 GB smaller (`docker compose build`).")
    closedloop_images: str = Field("closedloop", description="What the names of our own images begin with.")
    minio_image: str = Field("pgsty/silo:RELEASE.2026-09-16T00-00-00Z", description="MinIO's image, or a fork's.")
    postgres_image: str = Field("postgres:17", description="Postgres' image.")
    minio_console_port: int = Field(9001, description="Port of MinIO's console (profile open).")
    postgres_port: int = Field(5432, description="Port of Postgres (profile open).")
    pages_domain: str = Field("", description="Name under which the proxy serves the pages (profile proxy).")
    labels_domain: str = Field("", description="Name under which the proxy serves Label Studio.")
    proxy_tls: str = Field(
        "internal", description="An e-mail address: certificates from Let's Encrypt; internal: the proxy's own."
    )
    proxy_bind: str = Field("0.0.0.0", description="Address at which the proxy is published, ports 80 and 443.")  # noqa: S104
    prometheus_image: str = Field("prom/prometheus:v3.13.5", description="Prometheus' image (profile monitoring).")
    prometheus_port: int = Field(9090, description="Port at which Prometheus is published. It has no login.")
    grafana_image: str = Field("grafana/grafana:12.4", description="Grafana's image (profile monitoring).")
    grafana_port: int = Field(3000, description="Port at which Grafana is published.")
    inference_memory: str = Field("2g", description="Memory limit of inference; OpenCLIP's larger models want more.")
    trainer_memory: str = Field("3g", description="Memory limit of the trainer; see docs/server.md for many crops.")
    web_memory: str = Field("640m", description="Memory limit of the pages; a large picture takes 320 MB for a moment.")

    @cached_property
    def home(self) -> Path:
        """The state folder as an absolute path."""
        return self.closedloop_home.expanduser().resolve()

    @cached_property
    def cache(self) -> Path:
        """The cache's folder as an absolute path."""
        return self.closedloop_cache.expanduser().resolve()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the records."""
        return self.closedloop_database_url or f"sqlite:///{self.home / 'closedloop.db'}"

    @property
    def inference_url(self) -> str:
        """Base URL of the inference service."""
        return self.closedloop_inference_url or f"http://{self.host}:{self.closedloop_inference_port}"

    @property
    def host(self) -> str:
        """The address at which this machine reaches its own parts."""
        return "127.0.0.1" if self.closedloop_bind in ("0.0.0.0", "localhost") else self.closedloop_bind  # noqa: S104

    def require(self, name: str) -> str:
        """The value of a setting that has no default; raises MissingSetting where it is empty."""
        value = getattr(self, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if not text:
            raise MissingSetting(name=name.upper())
        return text


def load_settings() -> Settings:
    """Read the settings: the environment before `.env`, and the keys of `$CLOSEDLOOP_HOME/secrets.env` before both.

    Those keys belong to the store and the Label Studio below that home, whatever else a shell exports. Raises
    InvalidSetting, which names what cannot be used.
    """
    try:
        home = Settings(_env_file=".env").home  # type: ignore[call-arg]
        own = {name.lower(): value for name, value in dotenv_values(home / "secrets.env").items() if value}
        return Settings(_env_file=".env", **own)  # type: ignore[call-arg]
    except ValidationError as error:
        faults = [f"{str(fault['loc'][0]).upper()} ({fault['msg']})" for fault in error.errors()]
        raise InvalidSetting(faults=", ".join(faults)) from None


WEAK = re.compile("minioadmin|change-me|changeme|password|labelstudio|closedloop", re.IGNORECASE)
SHORTEST = 12  # characters of a secret


def generated(name: str) -> bool:
    """Whether a setting is a value that `make secrets` makes."""
    return Settings.model_fields[name].annotation is SecretStr or name == "aws_access_key_id"


def check_secrets(settings: Settings) -> None:
    """Raise WeakSecrets, naming every secret of the stack that is missing, short or known to everyone."""
    faults = []
    for name in filter(generated, Settings.model_fields):
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not text:
            faults.append(f"{name.upper()} is missing")
        elif (known := WEAK.search(text)) and len(WEAK.sub("", text)) < SHORTEST:
            faults.append(f'{name.upper()} is a value that everyone knows ("{known[0].lower()}" and little else)')
        elif len(text) < SHORTEST:
            faults.append(f"{name.upper()} has fewer than {SHORTEST} characters")
    for name, longest in (("aws_access_key_id", 20), ("label_studio_api_key", 40)):
        value = getattr(settings, name)
        if len(value if isinstance(value, str) else value.get_secret_value()) > longest:
            faults.append(f"{name.upper()} has more than {longest} characters")
    if faults:
        raise WeakSecrets(faults="; ".join(faults))


HEADINGS = {
    "closedloop_home": "Closedloop",
    "s3_endpoint_url": "Store and Label Studio. Under `make run` made by itself: leave it empty",
    "bind": "Docker compose alone",
}


def env_example() -> str:
    """The text of `.env.example`: every setting with its default and what it means."""
    lines = [
        "# Every setting of Closedloop, generated by `make env-example`. Copy to .env and change what you need.",
        "",
    ]
    for name, field in Settings.model_fields.items():
        if name in HEADINGS:
            lines += [f"## {HEADINGS[name]}", ""]
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        made = f"{GENERATED} " if generated(name) else ""
        lines += [f"# {made}{field.description}", f"{name.upper()}={default}", ""]
    return "\n".join(lines).rstrip() + "\n"
