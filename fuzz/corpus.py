#!/usr/bin/env python3
"""Stores the inputs of a fuzz target as lines of text, which can be read, compared and merged.

    corpus.py unpack TARGET FOLDER    writes a file for each line of corpus/TARGET.txt
    corpus.py pack TARGET FOLDER      writes a line for each file of the folder

A line has the bytes unchanged, except for `\\\\` and `\\xNN` where they are not plain ASCII.
"""

import hashlib
import pathlib
import re
import sys


def escape(data):
    plain = lambda byte: 0x20 <= byte < 0x7F and byte != 0x5C
    text = (chr(byte) if plain(byte) else "\\\\" if byte == 0x5C else f"\\x{byte:02x}" for byte in data)
    return "".join(text)


def unescape(line):
    def one(found):
        escaped = found.group()
        return b"\\" if escaped == rb"\\" else bytes([int(escaped[2:], 16)])

    return re.sub(rb"\\(?:\\|x[0-9a-f]{2})", one, line.encode("ascii"))


def main(action, target, folder):
    lines = pathlib.Path(__file__).parent / "corpus" / f"{target}.txt"
    folder = pathlib.Path(folder)
    if action == "unpack":
        folder.mkdir(parents=True, exist_ok=True)
        # An empty last line is an input, too.
        for line in lines.read_text("ascii").split("\n")[:-1]:
            data = unescape(line)
            (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
    elif action == "pack":
        inputs = {escape(path.read_bytes()) for path in folder.iterdir()}
        lines.write_text("".join(f"{line}\n" for line in sorted(inputs)), "ascii")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 4 else sys.exit(__doc__)
