"""The list of tests, filled by the suites' decorators in the order of their import."""

from dataclasses import dataclass
from typing import Callable

TESTS = []


@dataclass
class Test:
    name: str
    function: Callable
    shim_only: bool
    long_only: bool


def test(name, shim_only=False, long_only=False):
    """Registers a test. `shim_only`: it asks about mtcp itself and means nothing on the kernel. `long_only`: run with --long
    only, because what it looks for is too rare for a short run to say anything."""

    def register(function):
        assert name not in {t.name for t in TESTS}, name
        TESTS.append(Test(name, function, shim_only, long_only))
        return function

    return register
