"""Where a build or an installation has what mtcp-ab runs."""

from pathlib import Path

from system import BenchmarkError

BUILD_FOLDERS = ("perf/opponents", "perf/open_loop")


def default_shim():
    """Beside this source tree, or where meson has installed it."""
    here = Path(__file__).resolve().parent
    places = [here / "../../build/preload/libmtcp_shim.so", *here.glob("../../../lib/*/libmtcp_shim.so"),
              *(here / "../../.." / name / "libmtcp_shim.so" for name in ("lib", "lib64"))]
    return next((place.resolve() for place in places if place.exists()), None)


def helper(name, shim=None):
    """A program or library of ours that is installed in a folder beside the shim, and in a build lies in one of its own."""
    shim = shim or default_shim()
    places = [shim.parent / "mtcp" / name, *(shim.parent.parent / folder / name for folder in BUILD_FOLDERS)] if shim else []
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise BenchmarkError(f"{name} is not there: build mtcp")
    return found
