"""The layout's promise: who may import whom."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


def test_the_contracts_of_pyproject_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(lint), "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", ["flask_app.__main__", "sampler.__main__", "closedloop.cli"])
def test_only_those_who_need_torch_load_it(service: str) -> None:
    code = f"import {service}, sys; print(sorted({{'torch', 'torchvision', 'timm', 'open_clip'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["label_studio", "minio"])
def test_no_folder_shadows_a_package_of_pypi(folder: str) -> None:
    assert not list((CHECKOUT / folder).glob("__init__.py"))
