#!/usr/bin/env python3
"""Turns a BPF object into a C++ header: the instructions of a section, and which of them want which map. So the
program is in the engine itself, and nothing that reads ELF need be (libelf is not position-independent in Debian)."""

import struct
import sys


def main(source, target, wanted, namespace):
    with open(source, "rb") as file:
        elf = file.read()
    if elf[:5] != b"\x7fELF\x02":
        sys.exit(f"{source} is no 64-bit ELF file")
    at, = struct.unpack_from("<Q", elf, 40)
    size, count, names_index = struct.unpack_from("<HHH", elf, 58)
    # name, type, flags, address, offset, size, link, info
    sections = [struct.unpack_from("<IIQQQQII", elf, at + i * size) for i in range(count)]

    def text(table, offset):
        start = table[4] + offset
        return elf[start:elf.index(b"\0", start)].decode()

    name = lambda section: text(sections[names_index], section[0])
    code = next(s for s in sections if name(s) == wanted)
    instructions = struct.unpack_from(f"<{code[5] // 8}Q", elf, code[4])
    if any(name(s) == ".text" and s[5] > 0 for s in sections):
        sys.exit(f"{source} has functions that are not inlined")
    slots = []
    for relocations in (s for s in sections if name(s) == f".rel{wanted}"):
        symbols = sections[relocations[6]]
        for offset in range(relocations[4], relocations[4] + relocations[5], 16):
            where, info = struct.unpack_from("<QQ", elf, offset)
            symbol, = struct.unpack_from("<I", elf, symbols[4] + (info >> 32) * 24)
            slots.append((where // 8, text(sections[symbols[6]], symbol)))
    with open(target, "w") as file:
        file.write("// Made from a BPF program by embed.py.\n#pragma once\n\n#include <array>\n#include <cstdint>\n\n")
        file.write(f"namespace mtcp::stack::dpdk::{namespace} {{\n\nstruct MapUse {{\n  std::uint32_t instruction;\n  const char* map;\n}};\n\n")
        file.write(f"inline constexpr std::array<std::uint64_t, {len(instructions)}> kCode{{\n")
        file.writelines(f"    0x{i:016x},\n" for i in instructions)
        file.write(f"}};\n\ninline constexpr std::array<MapUse, {len(slots)}> kMaps{{{{\n")
        file.writelines(f'    {{{where}, "{symbol}"}},\n' for where, symbol in slots)
        file.write(f"}}}};\n\n}}  // namespace mtcp::stack::dpdk::{namespace}\n")


main(*sys.argv[1:])
