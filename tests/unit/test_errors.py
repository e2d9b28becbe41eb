"""Every error is one plain text with a code, and says what to do."""

import inspect
import string

import pytest

from closedloop import errors
from closedloop.errors import ClosedloopError

EVERY = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, ClosedloopError)]


@pytest.mark.parametrize("kind", EVERY)
def test_the_docstring_is_the_message(kind):
    names = {name for _, name, _, _ in string.Formatter().parse(inspect.getdoc(kind)) if name}
    error = kind(**dict.fromkeys(names, "X"))
    assert "{" not in str(error)
    assert "\n" not in str(error)
    assert error.as_json() == {"ok": False, "error": str(error), "code": kind.code}


def test_codes_are_unique():
    codes = [kind.code for kind in EVERY]
    assert len(set(codes)) == len(codes)
