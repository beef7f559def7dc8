#!/usr/bin/env python3
"""No module of ours gives a name twice: the second would quietly take the first one's place, in what stands before it as well.

usage: check_names.py ROOT"""
import ast
import pathlib
import sys


def names(statement):
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        # The name of a registered test is in its decorator.
        return [] if getattr(statement, "decorator_list", []) else [statement.name]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return []


def given_twice(path):
    seen = {}
    for statement in ast.parse(path.read_text()).body:
        for name in names(statement):
            if name in seen:
                yield f"{path}:{statement.lineno}: {name} has been given in line {seen[name]}"
            seen[name] = statement.lineno


def main():
    root = pathlib.Path(sys.argv[1])
    paths = [path for folder in ("perf", "scripts", "stack", "tests") for path in (root / folder).rglob("*.py")]
    found = [line for path in paths for line in given_twice(path)]
    assert paths and not found, "\n".join(found)
    print(f"{len(paths)} files")


main()
