"""Emoji that must not be trained on: those of the quickstart's validation and test, and their variants.

What the variants of an emoji are, packs/quickstart/steps/emoji_groups.py says.
"""

import importlib.util
from collections.abc import Callable
from functools import cache

from steps.common import QUICKSTART, quickstart_splits

SKIN_TONES = range(0x1F3FB, 0x1F400)


@cache
def _group_rule() -> Callable[[str, str], str]:
    """`group_of` of the quickstart, which says what the variants of an emoji are."""
    file = QUICKSTART.parents[4] / "packs/quickstart/steps/emoji_groups.py"
    spec = importlib.util.spec_from_file_location("emoji_groups", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.group_of


def is_flag(points: list[int]) -> bool:
    """Whether code points are a country's or a region's flag."""
    return points[0] in range(0x1F1E6, 0x1F200) or 0xE007F in points


def held_out(points: list[int]) -> bool:
    """Whether the quickstart validates or tests with an emoji, or a variant of it."""
    plain = [point for point in points if point != 0xFE0F and point not in SKIN_TONES]
    unified = "-".join(f"{point:04x}" for point in plain)
    group = _group_rule()(unified, "Flags" if is_flag(plain) else "")
    groups = quickstart_splits("emoji", "group")
    return {_by_key().get(unified), groups.get(group)} & {"validation", "test"} != set()


@cache
def _by_key() -> dict[str, str]:
    splits = quickstart_splits("emoji", "key")
    return {key.replace("-fe0f", ""): split for key, split in splits.items()}
