"""Writes Sources/SnapCore/DecompositionData.swift: the canonical decompositions of Unicode, from Python's unicodedata.

    python targets/coreml/runtime/Scripts/make_decompositions.py

Run it under a Python whose unicodedata is of the version that the tokenizer corpus was made with (14.0.0).
"""

import textwrap
import unicodedata
from pathlib import Path

OUTPUT = Path(__file__).parent.parent / "Sources" / "SnapCore" / "DecompositionData.swift"
VERSION = "14.0.0"

TEMPLATE = '''/// Canonical decompositions of Unicode {version} but for Hangul, in hexadecimal; made by `Scripts/make_decompositions.py`.
///
/// `C=` tells the code point of the entry behind it, and the entries behind that are of the next code points. An entry is
/// one code point, `A+B` for two that compose again, or `A-B` for two that do not (composition exclusions).
let decompositionData = """
{data}
    """
'''


def entries() -> list[str]:
    """The entries in the order of their code points."""
    found = []
    previous = None
    for point in range(0x110000):
        mapping = unicodedata.decomposition(chr(point))
        # Compatibility mappings start with a tag.
        if not mapping or mapping.startswith("<"):
            continue
        parts = mapping.split()
        composes = unicodedata.normalize("NFC", chr(point)) == chr(point)
        entry = ("+" if composes else "-").join(part.lstrip("0") for part in parts)
        found.append(entry if previous == point - 1 else f"{point:X}={entry}")
        previous = point
    return found


def main() -> None:
    if unicodedata.unidata_version != VERSION:
        raise SystemExit(f"unicodedata is of Unicode {unicodedata.unidata_version}; take a Python with {VERSION}")
    lines = textwrap.wrap(" ".join(entries()), 110, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    OUTPUT.write_text(TEMPLATE.format(version=VERSION, data="\n".join(lines)))


if __name__ == "__main__":
    main()
