"""Which emoji are variants of one base: the unit that is put whole into one split.

The rule, in this order:

1. A flag is its own group.
2. After the first code point, variation selector, joiner, gender signs and the right-facing arrow go.
3. A person (man, woman or person) joined with other people, hearts or kisses belongs to `family`;
   joined with hair or with nothing, to `adult`; joined with a thing, to `person-<thing>`, so that the
   man, the woman and the person of one occupation stay together.
4. The `MERGED` table puts together what differs by colour, direction, count, phase or sex alone, and an
   animal with its face.
5. Anything else goes by its first code point, so that a joined sequence stays with what it starts with.
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
    "bust": "1f464-1f465",
    "pointing-hand": "1f446-1f449 261d",
    "facing-fist": "1f91b-1f91c",
    "thumb": "1f44d-1f44e",
    "sideways-hand": "1faf1-1faf2",
    "level-palm": "1faf3-1faf4",
    "pushing-hand": "1faf7-1faf8",
    "mechanical-limb": "1f9be-1f9bf",
    "clock-face": "1f550-1f567",
    "moon-phase": "1f311-1f318",
    "moon-face": "1f31a-1f31d",
    "plain-heart": "1f499-1f49c 1f9e1 1f5a4 1f90d 1f90e 1fa75-1fa77 2764",
    "plain-circle": "1f534-1f535 1f7e0-1f7e4 26aa-26ab",
    "plain-square": "1f7e5-1f7eb 25aa-25ab 25fb-25fe 2b1b-2b1c 1f532-1f533",
    "plain-diamond": "1f536-1f539",
    "plain-triangle": "1f53a-1f53b",
    "closed-book": "1f4d5 1f4d7-1f4d9",
    "globe": "1f30d-1f30f",
    "mailbox": "1f4ea-1f4ed",
    "medal": "1f947-1f949",
    "magnifier": "1f50d-1f50e",
    "loudspeaker": "1f507-1f50a",
    "bell": "1f514-1f515",
    "lock": "1f50f-1f510 1f512-1f513",
    "hourglass": "231b 23f3",
    "chart": "1f4c8-1f4c9",
    "punctuation": "2753-2757 203c 2049",
    "arrow": "2194-2199 21a9-21aa 27a1 2934-2935 2b05-2b07",
    "word-arrow": "1f519-1f51d",
    "circling-arrows": "1f503-1f504",
    "repeat-button": "1f501-1f502",
    "fast-button": "23e9-23ec",
    "track-button": "23ed-23ee",
    "play-button": "25b6 25c0",
    "up-down-button": "1f53c-1f53d",
    "brightness": "1f505-1f506",
    "input-button": "1f520-1f524",
    "blood-type": "1f170-1f171 1f17e 1f18e",
    "check": "2705 2714 2611",
    "cross": "274c 274e",
    "loop": "27b0 27bf",
    "keycap": "23 2a 30-39 1f51f",
    "three-monkeys": "1f648-1f64a",
    "monkey": "1f412 1f435",
    "dog": "1f436 1f415 1f429",
    "cat": "1f431 1f408",
    "mouse": "1f42d 1f401 1f400",
    "cow": "1f42e 1f404",
    "tiger": "1f42f 1f405",
    "rabbit": "1f430 1f407",
    "horse": "1f434 1f40e",
    "pig": "1f437 1f416",
    "dragon": "1f432 1f409",
    "whale": "1f433 1f40b",
    "camel": "1f42a-1f42b",
    "chick": "1f423-1f425",
    "house": "1f3e0-1f3e1",
    "battery": "1f50b 1faab",
    "smoking": "1f6ac 1f6ad",
    "litter": "1f6ae-1f6af",
    "water-sign": "1f6b0-1f6b1",
    "bicycle": "1f6b2-1f6b3",
    "mobile-phone": "1f4f1-1f4f5",
    "money": "1f4b4-1f4b7",
    "envelope": "2709 1f4e7-1f4e9",
    "page": "1f4c3-1f4c4",
    "calendar": "1f4c5-1f4c6",
    "toilet-sign": "1f6b9-1f6ba",
    "tray": "1f4e4-1f4e5",
    "paired-hearts": "1f495 1f49e",
    "angry-devil": "1f47f 1f608",
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
