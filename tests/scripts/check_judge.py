#!/usr/bin/env python3
"""scripts/ab --against says that a row differs only where the rounds do.

usage: check_judge.py ROOT"""
import pathlib
import random
import sys

ROOT = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(ROOT / "perf/ab"))
sys.dont_write_bytecode = True
from against import judge  # noqa: E402
from loads import Sample  # noqa: E402

ROUNDS, NOISE = 7, 0.03


def rows(factor, rounds=ROUNDS, seed=1):
    """A machine that is fast in one round and slow in the next; the two of a round see the same, up to the noise."""
    chance = random.Random(seed)
    before, now = [], []
    for _ in range(rounds):
        machine = chance.uniform(50_000, 100_000)
        before.append(Sample(rate=machine * chance.uniform(1 - NOISE, 1 + NOISE)))
        now.append(Sample(rate=machine * factor * chance.uniform(1 - NOISE, 1 + NOISE)))
    return before, now


def verdict(*arguments, **named):
    return judge(*rows(*arguments, **named))["verdict"]


def broken():
    before, now = rows(2)
    now[3].errors.append("a wrong byte")
    return judge(before, now)["verdict"]


def main():
    equal = [verdict(1, seed=seed) for seed in range(200)]
    checks = {
        "a tenth slower is slower": all(verdict(0.9, seed=seed) == "SLOWER" for seed in range(50)),
        "a tenth faster is faster": all(verdict(1.1, seed=seed) == "faster" for seed in range(50)),
        "the same is no difference, nineteen times of twenty": equal.count("no difference shown") >= 190,
        "half a percent is none, though it be sure": judge(rows(1)[0], [Sample(rate=s.rate * 0.995) for s in rows(1)[0]])["verdict"]
        == "no difference shown",
        "four rounds are too few": verdict(2, rounds=4) == "no difference shown",
        "an error voids the row": broken() == "void",
        "nothing measured is void": judge([], [])["verdict"] == "void",
    }
    for text, good in checks.items():
        print(f"{'ok' if good else 'NOT OK'}: {text}")
    failed = sum(not good for good in checks.values())
    print(f"{len(checks) - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
