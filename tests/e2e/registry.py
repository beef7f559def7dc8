"""The list of tests, filled by the suites' decorators in the order of their import."""

from dataclasses import dataclass
from typing import Callable

TESTS = []


@dataclass
class Test:
    name: str
    function: Callable
    shim_only: bool


def test(name, shim_only=False):
    """Registers a test. `shim_only`: it asks about mtcp itself and means nothing on the kernel."""

    def register(function):
        assert name not in {t.name for t in TESTS}, name
        TESTS.append(Test(name, function, shim_only))
        return function

    return register
