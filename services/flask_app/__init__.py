"""The pages (Flask): a module per page, which parses, makes one call into closedloop, and answers."""

from flask_app.app import create_app

__all__ = ["create_app"]
