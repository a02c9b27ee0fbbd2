"""Which emoji are variants of one base: the unit that is put whole into one split.

The rule, in this order:

1. A flag is its own group.
2. After the first code point, variation selector, joiner, gender signs and the right-facing arrow go.
3. A person (man, woman or person) joined with other people, hearts or kisses belongs to `family`;
   joined with hair or with nothing, to `adult`; joined with a thing, to `person-<thing>`, so that the
   man, the woman and the person of one occupation stay together.
4. The `MERGED` table puts together the emoji of people that differ by sex or age alone.
5. Anything else goes by its first code point, so that a joined sequence stays with what it starts with.

An emoji with a code point of its own is a base of its own, also within a series (hearts of eight
colours, clock faces, moon phases, a dog and its face): these are not variants in Unicode's sense.
"""

DROPPED = {0xFE0F, 0x200D, 0x2640, 0x2642, 0x27A1}
PEOPLE = {0x1F468, 0x1F469, 0x1F9D1}
RELATIVES = {*PEOPLE, 0x1F466, 0x1F467, 0x1F9D2, 0x2764, 0x1F48B, 0x1F91D}
HAIR = {0x1F9B0, 0x1F9B1, 0x1F9B2, 0x1F9B3}

_RANGES: dict[str, str] = {
    "adult": "1f466-1f469 1f471 1f474-1f475 1f9d1-1f9d4",
    "family": "1f46a-1f46d 1f48f 1f491",
    "royalty": "1f478 1f934 1fac5",
    "claus": "1f385 1f936",
    "dancing": "1f483 1f57a",
    "pregnant": "1f930 1fac3-1fac4",
    "feeding": "1f931",
    "wedding": "1f470 1f935",
}


def _expand(table: dict[str, str]) -> dict[int, str]:
    """Turn ranges of hexadecimal code points into a code point -> group mapping."""
    merged: dict[int, str] = {}
    for group, ranges in table.items():
        for part in ranges.split():
            first, _, last = part.partition("-")
            for point in range(int(first, 16), int(last or first, 16) + 1):
                if point in merged:
                    raise ValueError(f"{point:x} is in both {merged[point]} and {group}")
                merged[point] = group
    return merged


MERGED = _expand(_RANGES)


def group_of(unified: str, category: str) -> str:
    """Return the group of an emoji given as hyphenated hexadecimal code points."""
    if category == "Flags":
        return f"flag-{unified.lower()}"
    every = [int(part, 16) for part in unified.split("-")]
    points = every[:1] + [point for point in every[1:] if point not in DROPPED]
    if points[0] in PEOPLE:
        rest = points[1:]
        if any(point in RELATIVES for point in rest):
            return "family"
        thing = next((point for point in rest if point not in HAIR), None)
        if thing is not None:
            return {0x1F384: "claus", 0x1F37C: "feeding"}.get(thing, f"person-{thing:x}")
    return MERGED.get(points[0], f"{points[0]:x}")
