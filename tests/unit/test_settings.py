"""Settings that cannot be used, and secrets that will not do, are named."""

import pytest
from pydantic import SecretStr

from closedloop.errors import InvalidSetting, WeakSecrets
from closedloop.settings import Settings, check_secrets, generated, load_settings

GOOD = "f3b1c0de9a8b7c6d5e4f"


def stack(**secrets: str) -> Settings:
    """Settings with every secret good but for some."""
    made = {name: GOOD for name in Settings.model_fields if generated(name)} | secrets
    return Settings(**{k: SecretStr(v) if k != "aws_access_key_id" else v for k, v in made.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("", "is missing"),
        ("k3", "has fewer than 12 characters"),
        ("minioadmin", 'is a value that everyone knows ("minioadmin" and little else)'),
        ("minioadminMinioAdminminioadmin", 'is a value that everyone knows ("minioadmin" and little else)'),
        ("My-Password-1", 'is a value that everyone knows ("password" and little else)'),
    ],
)
def test_a_weak_secret_is_named_with_its_fault(value: str, fault: str) -> None:
    with pytest.raises(WeakSecrets, match="POSTGRES_PASSWORD") as said:
        check_secrets(stack(postgres_password=value))
    assert f"POSTGRES_PASSWORD {fault}" in str(said.value)
    assert "MINIO_ROOT_PASSWORD" not in str(said.value)


def test_a_long_secret_may_hold_a_known_word() -> None:
    check_secrets(stack(postgres_password="correct-horse-password-staple"))


@pytest.mark.parametrize(
    ("name", "value"), [("CLOSEDLOOP_LOG_LEVEL", "VERBOSE"), ("CLOSEDLOOP_WEB_PORT", "50OO"), ("PROMETHEUS_PORT", "x")]
)
def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSetting, match=name):
        load_settings()
