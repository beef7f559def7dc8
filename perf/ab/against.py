"""This tree against another revision of it: both built, measured in turn in the same rounds, and which rows differ."""

import json
import os
import random
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from statistics import median

from report import UNITS, machine
from sides import TITLES
from system import BenchmarkError

LEAST = 0.01  # what is less than this is no difference, however sure
RESAMPLES = 2000


def output_of(*words, cwd):
    done = subprocess.run([str(word) for word in words], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(map(str, words))}: {done.stdout.strip()[-2000:]}")
    return done.stdout.strip()


def commit_of(root, revision):
    return output_of("git", "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", cwd=root)


def is_changed(root):
    return output_of("git", "status", "--porcelain", "--untracked-files=no", cwd=root) != ""


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
        options = {o["name"]: o["value"] for o in json.loads(output_of("meson", "introspect", like, "--buildoptions", cwd=root))}
        debug = str(options["debug"]).lower()
        output_of("meson", "setup", build, source, f"-Doptimization={options['optimization']}", f"-Ddebug={debug}", cwd=place)
    targets = json.loads(output_of("meson", "introspect", build, "--targets", cwd=place))
    wanted = [Path(t["filename"][0]).relative_to(build.resolve()) for t in targets if t["name"] in ("mtcp_shim", "mtcp_engine", "count_bench")]
    output_of("ninja", "-C", build, *wanted, cwd=place)
    return commit, build


def print_instructions(root, before, now):
    """Where both can count them (perf/instructions)."""
    if all((build / "perf/count_bench").exists() for build in (before, now)) and shutil.which("valgrind"):
        print("\ninstructions:", flush=True)
        subprocess.run([root / "perf/instructions", "--build", now, "--against", before], stdin=subprocess.DEVNULL, check=False)


def interval(ratios, seed=1):
    """The middle 99 % of the medians of what could have been measured as well (bootstrap)."""
    choose = random.Random(seed)
    medians = sorted(median(choose.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return medians[int(RESAMPLES * 0.005)], medians[int(RESAMPLES * 0.995) - 1]


def judge(before, now):
    """Of two lists of samples, one of each for a round: what they say. Void if any of them has an error, or there are too few."""
    errors = [error for sample in (*before, *now) for error in sample.errors]
    result = {"errors": errors, "before": [asdict(s) for s in before], "now": [asdict(s) for s in now]}
    if errors or len(before) != len(now) or not before or not all(s.rate > 0 for s in (*before, *now)):
        return result | {"verdict": "void"}
    ratios = [b.rate / a.rate for a, b in zip(before, now)]
    low, high = interval(ratios)
    middle = median(ratios)
    enough = len(ratios) >= 5
    verdict = "no difference shown"
    if enough and low > 1 and middle >= 1 + LEAST:
        verdict = "faster"
    elif enough and high < 1 and middle <= 1 - LEAST:
        verdict = "SLOWER"
    return result | {"verdict": verdict, "ratio": middle, "low": low, "high": high,
                     "before_rate": median(s.rate for s in before), "now_rate": median(s.rate for s in now)}


def print_judgements(rows, judgements):
    """judgements: {(row key, side name): judge()}. Returns how many rows are slower or void."""
    print(f"\n{'':44}{'before':>12}{'now':>12}   ratio, and where it lies (99 %)")
    bad = 0
    for row in rows:
        for (key, side), j in judgements.items():
            if key != row.key:
                continue
            name = f"{row.key:14} {TITLES[side]}"[:43]
            bad += j["verdict"] in ("void", "SLOWER")
            if j["verdict"] == "void":
                print(f"{name:44}void: {j['errors'][0] if j['errors'] else 'not measured'}")
                continue
            unit = UNITS.get(row.kind, "/s")
            print(f"{name:44}{j['before_rate']:>10,.0f}{unit}{j['now_rate']:>10,.0f}{unit}   {j['ratio']:.3f}  {j['low']:.3f} - {j['high']:.3f}  {j['verdict']}")
    rounds = min((len(j["before"]) for j in judgements.values()), default=0)
    if rounds < 5:
        print("fewer than five rounds: no verdict")
    return bad


def write_judgements(path, rows, judgements, settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = [{"key": row.key, "title": row.title, "side": side, **j} for row in rows for (key, side), j in judgements.items() if key == row.key]
    path.write_text(json.dumps({"machine": machine(), "settings": settings, "rows": table}, indent=1) + "\n")


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
    return {"before": {"revision": revision, "commit": commit}, "now": {"commit": commit_of(root, "HEAD"), "changed": is_changed(root)},
            "load_average_before": os.getloadavg()[0]}
