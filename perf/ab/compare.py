"""What samples of two sides say about each other, and when they say nothing: the ratio of medians, its interval, a verdict."""

import random
from dataclasses import dataclass
from statistics import median

LEAST_ROUNDS = 5      # for a verdict
RESAMPLES = 4000
CONFIDENCE = 0.95
SEED = 20140402       # the same samples give the same interval


@dataclass
class Comparison:
    """`other` against `base`; a ratio above 1 is in favour of `other`, whether more is better or less."""

    ratio: float
    low: float           # of the interval that has the ratio with 95 % confidence
    high: float
    least: float         # of the rounds' own ratios
    most: float
    rounds: int
    verdict: str         # faster | slower | no difference shown | too few rounds


def quantile(ordered, share):
    """Of values in order, with what lies between two of them in proportion."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def bootstrap(values, statistic, resamples, confidence, seed):
    """Where the statistic of what could have been measured as well lies with that confidence: percentiles, of values drawn with
    replacement. The same seed gives the same interval."""
    draw = random.Random(seed)
    found = sorted(statistic(draw.choices(values, k=len(values))) for _ in range(resamples))
    return quantile(found, (1 - confidence) / 2), quantile(found, (1 + confidence) / 2)


def ratio_of(pairs):
    return median(o for _, o in pairs) / median(b for b, _ in pairs)


def interval_of(pairs):
    """Rounds are drawn, not samples: what disturbs a round disturbs both of its sides."""
    return bootstrap(pairs, ratio_of, RESAMPLES, CONFIDENCE, SEED)


def verdict_of(rounds, low, high):
    if rounds < LEAST_ROUNDS:
        return "too few rounds"
    return "faster" if low > 1 else "slower" if high < 1 else "no difference shown"


def compare(base, other, more_is_better=True):
    """Values of the same rounds, in order: base[i] and other[i] were measured one after the other. None without any, or with one
    that is not above zero (of which there is no ratio)."""
    pairs = list(zip(base, other))
    if not pairs or min(min(pair) for pair in pairs) <= 0:
        return None
    if not more_is_better:
        pairs = [(o, b) for b, o in pairs]  # times: half of it is twice as good
    rounds = [o / b for b, o in pairs]
    low, high = interval_of(pairs) if len(pairs) > 1 else (rounds[0], rounds[0])
    return Comparison(ratio_of(pairs), low, high, min(rounds), max(rounds), len(pairs),
                      verdict_of(len(pairs), low, high))
