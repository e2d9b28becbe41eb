"""What a page needs of the application that answers: stores, inference, settings, the moment, who asks for what."""

import datetime as dt
from typing import Any

from flask import current_app, request

from closedloop.inference import Inference
from closedloop.settings import Settings
from closedloop.storage import Stores

EXTENSION = "closedloop"


def stores() -> Stores:
    """Records and objects."""
    return _part("stores")


def inference() -> Inference:
    """The client of the inference service."""
    return _part("inference")


def settings() -> Settings:
    """The settings of the installation."""
    return _part("settings")


def uploads() -> Any:
    """The counter of pictures taken."""
    return _part("uploads")


def now() -> dt.datetime:
    """This moment, in UTC."""
    return dt.datetime.now(dt.UTC)


def wants_json() -> bool:
    """Whether the caller asked for JSON and for no HTML."""
    accept = request.accept_mimetypes
    return "application/json" in accept.values() and accept["application/json"] >= accept["text/html"]


def is_navigation() -> bool:
    """Whether a browser goes to a new page (rather than htmx fetching a part of one)."""
    return "HX-Request" not in request.headers and "text/html" in request.accept_mimetypes.values()


def _part(name: str) -> Any:
    return current_app.extensions[EXTENSION][name]
