"""Numbers on a command line, for argparse: what is none, or out of range, is an error that says so."""

import argparse
import math


def number(least, most=math.inf, kind=int):
    """A `type=` that takes a number from `least` to `most`."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or math.isinf(value):
            what = "a whole number" if kind is int else "a number"
            limit = f"of {least} or more" if math.isinf(most) else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what} {limit}")
        return value

    return parse
