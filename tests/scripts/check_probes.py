#!/usr/bin/env python3
"""The engine has the static tracepoints that stack/probes.hh names, each with its arguments, and each is a nop.

usage: check_probes.py ROOT ENGINE"""
import pathlib
import re
import subprocess
import sys


def wanted(root):
    """name -> number of arguments"""
    text = (root / "stack/probes.hh").read_text()
    found = {name: int(count) for count, name in re.findall(r"STAP_PROBE(\d+)\(mtcp, (\w+)", text)}
    used = {name for path in (root / "stack").rglob("*.*") if path.suffix in (".cc", ".hh") for name in re.findall(r"probe::(\w+)\(", path.read_text())}
    assert found and set(found) == used, f"in stack/probes.hh {sorted(found)}, used {sorted(used)}"
    return found


def sections_of(engine):
    """(address, offset, size) of what is loaded from the file."""
    text = subprocess.run(["readelf", "-SW", engine], stdout=subprocess.PIPE, check=True, text=True).stdout
    return [tuple(int(word, 16) for word in found) for found in re.findall(r"PROGBITS\s+([0-9a-f]{8,}) ([0-9a-f]+) ([0-9a-f]+)", text)]


def main():
    root, engine = pathlib.Path(sys.argv[1]), sys.argv[2]
    notes = subprocess.run(["readelf", "-nW", engine], stdout=subprocess.PIPE, check=True, text=True).stdout
    probes = re.findall(r"Provider: mtcp\s+Name: (\w+)\s+Location: 0x([0-9a-f]+), Base: 0x[0-9a-f]+, Semaphore: 0x([0-9a-f]+)\s+Arguments:(.*)", notes)
    names = wanted(root)
    failures = [f"no probe {name}" for name in sorted(set(names) - {probe[0] for probe in probes})]
    image, sections = pathlib.Path(engine).read_bytes(), sections_of(engine)
    for name, location, semaphore, arguments in probes:
        if len(arguments.split()) != names.get(name):
            failures.append(f"{name} at {location} has the arguments {arguments}")
        at = next((offset + int(location, 16) - address for address, offset, size in sections if address <= int(location, 16) < address + size), None)
        if at is None or image[at] != 0x90 or int(semaphore, 16) != 0:
            failures.append(f"{name} at {location} costs more than a nop")
    print("\n".join(failures) or f"{len(names)} probes at {len(probes)} places")
    return 1 if failures else 0


sys.exit(main())
