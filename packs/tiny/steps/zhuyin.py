"""Pinyin with tone digits to zhuyin with tone digits, by rule: `guo2` -> `ㄍㄨㄛ2`."""

import re

INITIALS = {
    "zh": "ㄓ", "ch": "ㄔ", "sh": "ㄕ", "b": "ㄅ", "p": "ㄆ", "m": "ㄇ", "f": "ㄈ", "d": "ㄉ",
    "t": "ㄊ", "n": "ㄋ", "l": "ㄌ", "g": "ㄍ", "k": "ㄎ", "h": "ㄏ", "j": "ㄐ", "q": "ㄑ",
    "x": "ㄒ", "r": "ㄖ", "z": "ㄗ", "c": "ㄘ", "s": "ㄙ",
}  # fmt: skip
"""Longer spellings first."""
FINALS = {
    "a": "ㄚ", "o": "ㄛ", "e": "ㄜ", "ê": "ㄝ", "ai": "ㄞ", "ei": "ㄟ", "ao": "ㄠ", "ou": "ㄡ",
    "an": "ㄢ", "en": "ㄣ", "ang": "ㄤ", "eng": "ㄥ", "er": "ㄦ", "ong": "ㄨㄥ", "i": "ㄧ",
    "ia": "ㄧㄚ", "io": "ㄧㄛ", "ie": "ㄧㄝ", "iao": "ㄧㄠ", "iu": "ㄧㄡ", "ian": "ㄧㄢ", "in": "ㄧㄣ",
    "iang": "ㄧㄤ", "ing": "ㄧㄥ", "iong": "ㄩㄥ", "iai": "ㄧㄞ", "u": "ㄨ", "ua": "ㄨㄚ", "uo": "ㄨㄛ",
    "uai": "ㄨㄞ", "ui": "ㄨㄟ", "uan": "ㄨㄢ", "un": "ㄨㄣ", "uang": "ㄨㄤ", "ü": "ㄩ", "üe": "ㄩㄝ",
    "üan": "ㄩㄢ", "ün": "ㄩㄣ",
}  # fmt: skip
WITHOUT_INITIAL = {
    "yi": "i", "ya": "ia", "yo": "io", "ye": "ie", "yao": "iao", "you": "iu", "yan": "ian",
    "yin": "in", "yang": "iang", "ying": "ing", "yong": "iong", "yai": "iai", "wu": "u",
    "wa": "ua", "wo": "uo", "wai": "uai", "wei": "ui", "wan": "uan", "wen": "un",
    "wang": "uang", "yu": "ü", "yue": "üe", "yuan": "üan", "yun": "ün",
}  # fmt: skip
"""How pinyin spells a final that stands alone."""
BARE = frozenset({"zh", "ch", "sh", "r", "z", "c", "s"})
"""Their -i is not written in zhuyin."""
WENG = "ㄨㄥ"
_SYLLABLE = re.compile(r"([a-zü:ê]+)([1-5])", re.IGNORECASE)


def zhuyin(syllable: str) -> str:
    """Of one syllable of pinyin with a tone digit. Raises ValueError for what is none."""
    match = _SYLLABLE.fullmatch(syllable)
    if match is None:
        raise ValueError(f"{syllable!r} is no syllable of pinyin with a tone digit")
    letters, tone = match.group(1).lower().replace("u:", "ü").replace("v", "ü"), match.group(2)
    if letters == "weng":
        return WENG + tone
    initial = next((start for start in INITIALS if letters.startswith(start)), "")
    final = letters[len(initial) :]
    if not initial:
        final = WITHOUT_INITIAL.get(letters, letters)
    elif initial in BARE and final == "i":
        return INITIALS[initial] + tone
    elif initial in ("j", "q", "x") and final.startswith("u"):
        final = "ü" + final[1:]
    if final not in FINALS:
        raise ValueError(f"{syllable!r} is no syllable of pinyin with a tone digit")
    return INITIALS.get(initial, "") + FINALS[final] + tone


def pinyin_syllables() -> dict[str, str]:
    """Zhuyin without a tone → pinyin, of every combination that the rules allow, in the spelling
    that pinyin has for it."""
    bare = {sign: initial + "i" for initial, sign in INITIALS.items() if initial in BARE}
    spelled = dict(bare)
    for initial, sign in INITIALS.items():
        for final, rest in FINALS.items():
            if initial in ("j", "q", "x"):
                if final[0] in "iü":
                    spelled[sign + rest] = initial + final.replace("ü", "u")
            elif initial in ("b", "p", "m", "f") and final in ("uo", "ong"):
                continue  # pinyin writes bo and beng
            elif sign not in bare or final[0] not in "iü":
                spelled[sign + rest] = initial + final
    for pinyin, final in WITHOUT_INITIAL.items():
        spelled[FINALS[final]] = pinyin
    alone = ("a", "o", "e", "ê", "ai", "ei", "ao", "ou", "an", "en", "ang", "eng", "er")
    spelled |= {FINALS[final]: final for final in alone}
    spelled[WENG] = "weng"
    return spelled
