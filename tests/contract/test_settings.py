"""The settings are one documented table, and `.env.example` is that table."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from closedloop.errors import MissingSetting
from closedloop.settings import Settings, env_example

CHECKOUT = Path(__file__).parents[2]


def test_env_example_is_generated_from_the_settings() -> None:
    assert (CHECKOUT / ".env.example").read_text(encoding="utf-8") == env_example(), "run `make env-example`"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    said = Settings.model_fields[name].description
    assert said
    assert said[-1] in ".?"


@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]
)
def test_no_secret_has_a_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name.upper(), raising=False)
    with pytest.raises(MissingSetting, match=name.upper()):
        Settings().require(name)


def test_what_sounds_like_a_secret_is_never_printed() -> None:
    for name, field in Settings.model_fields.items():
        if any(word in name for word in ("secret", "password", "api_key")):
            assert field.annotation is SecretStr, name
