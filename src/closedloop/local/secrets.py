"""`secrets.env`: made at the first start with random values, read again at every later one."""

import os
import secrets
from pathlib import Path

from dotenv import dotenv_values

from closedloop.errors import CannotStart
from closedloop.settings import Settings

FILE = "secrets.env"


def ensure_secrets(settings: Settings) -> dict[str, str]:
    """The secrets and addresses of this installation, made where they are missing. Raises CannotStart.

    A secret is never changed; the addresses follow the ports of the settings.
    """
    path = settings.home / FILE
    values = {
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "LABEL_STUDIO_USERNAME": "admin@closedloop.local",
        "LABEL_STUDIO_PASSWORD": secrets.token_urlsafe(15),
        "LABEL_STUDIO_API_KEY": secrets.token_hex(20),
        "CLOSEDLOOP_OWNER_EMAIL": settings.closedloop_owner_email,
        "CLOSEDLOOP_OWNER_PASSWORD": secrets.token_urlsafe(15),
        "CLOSEDLOOP_SESSION_KEY": secrets.token_hex(32),
    }
    try:
        if path.exists():
            values |= {name: value for name, value in dotenv_values(path).items() if value}
        values["S3_ENDPOINT_URL"] = f"http://{settings.host}:{settings.closedloop_s3_port}"
        values["LABEL_STUDIO_URL"] = f"http://{settings.host}:{settings.closedloop_label_studio_port}"
        text = "# Made by `make run`. Keep it: Label Studio and the store know these values.\n" + "".join(
            f"{name}={value}\n" for name, value in sorted(values.items())
        )
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            partial = path.with_suffix(".partial")
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(partial, path)
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(
            problem=f"{path} cannot be read or written ({error}).", remedy="Mend it, then start again."
        ) from None
    return values


def with_secrets(settings: Settings, values: dict[str, str]) -> Settings:
    """The settings as the parts will read them, once these secrets are in the file."""
    return Settings(**{**settings.model_dump(), **{name.lower(): value for name, value in values.items()}})


def exists(home: Path) -> bool:
    """Whether this home was started before."""
    return (home / FILE).exists()
