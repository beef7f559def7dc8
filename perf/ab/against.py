"""This tree against another revision of it: both built, measured in turn in the same rounds, and which rows differ."""

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from statistics import median

from compare import LEAST_ROUNDS, bootstrap
from report import UNITS
from sides import TITLES
from system import BenchmarkError, command

LEAST = 0.01  # what is less than this is no difference, however sure
RESAMPLES = 2000
CONFIDENCE = 0.99
SEED = 1


def commit_of(root, revision):
    return command("git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", cwd=root).strip()


def is_changed(root):
    return command("git", "status", "--porcelain", "--untracked-files=no", cwd=root) != ""


def build_revision(root, revision, like, out):
    """Builds the libraries of a revision as the build directory `like` is built. Returns its build directory, which stays for the next time."""
    try:
        commit = commit_of(root, revision)
    except BenchmarkError:
        raise BenchmarkError(f"no such revision: {revision}") from None
    place = out / "against" / commit[:12]
    source, build = place / "source", place / "build"
    if not source.exists():
        partial = place / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        archive = subprocess.Popen(["git", "archive", commit], cwd=root, stdout=subprocess.PIPE)
        unpacked = subprocess.run(["tar", "-x", "-C", partial], stdin=archive.stdout, check=False).returncode
        if archive.wait() != 0 or unpacked != 0:
            raise BenchmarkError(f"git archive {commit} failed")
        partial.rename(source)
    print(f"building {revision} ({commit[:12]}) in {build} ...", flush=True)
    if not (build / "build.ninja").exists():
        options = {o["name"]: o["value"] for o in json.loads(command("meson", "introspect", like, "--buildoptions", cwd=root))}
        debug = str(options["debug"]).lower()
        command("meson", "setup", build, source, f"-Doptimization={options['optimization']}", f"-Ddebug={debug}", cwd=place)
    targets = json.loads(command("meson", "introspect", build, "--targets", cwd=place))
    wanted = [Path(t["filename"][0]).relative_to(build.resolve()) for t in targets if t["name"] in ("mtcp_shim", "mtcp_engine", "count_bench")]
    command("ninja", "-C", build, *wanted, cwd=place)
    return commit, build


def print_instructions(root, before, now):
    """Where both can count them (perf/instructions)."""
    if all((build / "perf/count_bench").exists() for build in (before, now)) and shutil.which("valgrind"):
        print("\ninstructions:", flush=True)
        subprocess.run([root / "perf/instructions", "--build", now, "--against", before], stdin=subprocess.DEVNULL, check=False)


def judge(before, now):
    """Of two lists of samples, one of each for a round: what they say. Void if any of them has an error, or there are too few."""
    errors = [error for sample in (*before, *now) for error in sample.errors]
    result = {"errors": errors, "before": [asdict(s) for s in before], "now": [asdict(s) for s in now]}
    if errors or len(before) != len(now) or not before or not all(s.rate > 0 for s in (*before, *now)):
        return result | {"verdict": "void"}
    ratios = [b.rate / a.rate for a, b in zip(before, now)]
    low, high = bootstrap(ratios, median, RESAMPLES, CONFIDENCE, SEED)
    middle = median(ratios)
    enough = len(ratios) >= LEAST_ROUNDS
    verdict = "no difference shown"
    if enough and low > 1 and middle >= 1 + LEAST:
        verdict = "faster"
    elif enough and high < 1 and middle <= 1 - LEAST:
        verdict = "SLOWER"
    return result | {"verdict": verdict, "ratio": middle, "low": low, "high": high,
                     "before_rate": median(s.rate for s in before), "now_rate": median(s.rate for s in now)}


def judge_all(rows, samples):
    """samples: as measure() returns them. [(row, side name, judge())], row by row."""
    return [(row, side, judge(*both)) for row in rows for (key, side), both in samples.items() if key == row.key]


def print_judgements(judgements):
    """Returns how many rows are slower or void."""
    print(f"\n{'':44}{'before':>12}{'now':>12}   ratio, and where it lies ({CONFIDENCE * 100:.0f} %)")
    bad = 0
    for row, side, j in judgements:
        name = f"{row.key:14} {TITLES[side]}"[:43]
        bad += j["verdict"] in ("void", "SLOWER")
        if j["verdict"] == "void":
            print(f"{name:44}void: {j['errors'][0] if j['errors'] else 'not measured'}")
            continue
        unit = UNITS.get(row.kind, "/s")
        print(f"{name:44}{j['before_rate']:>10,.0f}{unit}{j['now_rate']:>10,.0f}{unit}   {j['ratio']:.3f}  {j['low']:.3f} - {j['high']:.3f}  {j['verdict']}")
    if min((len(j["before"]) for *_, j in judgements), default=0) < LEAST_ROUNDS:
        print(f"fewer than {LEAST_ROUNDS} rounds: no verdict")
    return bad


def table_of(judgements):
    return [{"key": row.key, "title": row.title, "side": side, **j} for row, side, j in judgements]


def measure(rows, pairs, benches, rounds, seconds, progress):
    """pairs: (side of before, side of now); benches likewise. Who is first changes with each round."""
    samples = {}
    for number in range(1, rounds + 1):
        for row in rows:
            for pair in pairs:
                if not row.serves(pair[0].name):
                    continue
                for which in ((0, 1), (1, 0))[number % 2]:
                    sample = benches[which].measure(row, pair[which], seconds)
                    samples.setdefault((row.key, pair[0].name), ([], []))[which].append(sample)
                    progress(number, rounds, row, pair[which], sample, ("before", "now")[which])
    return samples


def describe(root, revision, commit):
    return {"before": {"revision": revision, "commit": commit}, "now": {"commit": commit_of(root, "HEAD"), "changed": is_changed(root)}}
