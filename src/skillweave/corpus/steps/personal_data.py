"""Step `personal_data`: telephone, identity and account numbers, e-mail and network addresses.

Numbers are recognized by their form, their checksum where they have one, and the words before them:
`电话 010-62781234` is a telephone number, `订单 00123456789` is not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import ClassVar, Literal, NamedTuple

from skillweave.config.base import Positive
from skillweave.corpus.step import STEPS, Drop, Result, Row, Step

CONTEXT = 16
"""Characters before a number in which words say what it is."""
Kind = Literal["email", "identity", "iban", "bank_card", "ssn", "passport", "phone", "address"]


class Found(NamedTuple):
    """A piece of personal data in a text."""

    kind: str
    start: int
    stop: int


PHONE_WORDS = re.compile(
    r"电话|手机|座机|热线|致电|拨打|传真|联系方式|联系人|微信|電話|手機|"
    r"\b(?:tel|telephone|phone|mobile|cell|call|fax|contact|whatsapp|hotline|sms|dial)\b",
    re.IGNORECASE,
)
OTHER_WORDS = re.compile(
    r"订单|单号|編號|编号|序列号|流水|运单|快递|发票|批号|货号|型号|条码|版本|股票|基金|期刊|学号|工号|"
    r"卡号|账号|帐号|代码|代碼|訂單|工单|案号|文号|证书|许可证|备案|邮编|(?<![@\w.])QQ(?!\.)|微博|"
    r"\b(?:order|invoice|tracking|ticket|sku|serial|isbn|issn|doi|part|model|batch|case|ref|"
    r"reference|id|code|number|version|commit|account|zip|article|bug|issue|item|lot)\b",
    re.IGNORECASE,
)
IDENTITY_WORDS = re.compile(r"身份证|身分證|证件号|\bidentity card\b", re.IGNORECASE)
PASSPORT_WORDS = re.compile(r"护照|護照|\bpassport\b", re.IGNORECASE)
VERSION_WORDS = re.compile(
    r"版本|章节|第|\b(?:v|ver|version|release|section|chapter|clause|oid|figure|table)\.?\s*$",
    re.IGNORECASE,
)
_BEFORE, _AFTER = r"(?<![\w.@/#=&%-])", r"(?![\w@]|[-.]\d)"
_HAN_BEFORE = r"(?<![A-Za-z0-9_.@/#=&%-])"
_HAN_AFTER = r"(?![A-Za-z0-9_@]|[-.]\d)"
"""Borders of a number. A Han character may stand beside it."""


def last_word(text: str, start: int, *patterns: re.Pattern[str]) -> int | None:
    """Which of some lists of words has the last word in the characters before a place."""
    before = text[max(0, start - CONTEXT) : start].rpartition("\n")[2]
    ends = [max((m.end() for m in pattern.finditer(before)), default=-1) for pattern in patterns]
    best = max(ends)
    return None if best < 0 else ends.index(best)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    total = 0
    for i, digit in enumerate(map(int, reversed(digits))):
        double = digit * 2 if i % 2 else digit
        total += double - 9 if double > 9 else double
    return total % 10 == 0


def identity_check_digit(first: str) -> str:
    """The check digit of the first 17 digits of a Chinese identity number (GB 11643-1999, which is
    ISO 7064 MOD 11-2)."""
    total = sum(int(digit) * pow(2, 17 - i, 11) for i, digit in enumerate(first))
    return "10X98765432"[total % 11]


PROVINCES = frozenset(
    [
        "11",
        "12",
        "13",
        "14",
        "15",
        "21",
        "22",
        "23",
        "31",
        "32",
        "33",
        "34",
        "35",
        "36",
        "37",
        "41",
        "42",
        "43",
        "44",
        "45",
        "46",
        "50",
        "51",
        "52",
        "53",
        "54",
        "61",
        "62",
        "63",
        "64",
        "65",
        "71",
        "81",
        "82",
        "83",
    ]
)
"""The first two digits of an identity number (GB/T 2260)."""


def is_identity(number: str) -> bool:
    """Whether 18 characters are a Chinese identity number: province, date of birth, check digit."""
    if number[:2] not in PROVINCES or identity_check_digit(number[:17]) != number[17].upper():
        return False
    return _is_birthday(number[6:14])


def _is_birthday(digits: str) -> bool:
    try:
        born = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return False
    return 1900 <= born.year <= 2035


_CARDS = (
    (re.compile(r"62|81"), range(16, 20)),
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"35(?:2[89]|[3-8])"), range(16, 20)),
    (re.compile(r"6011|65|64[4-9]"), range(16, 20)),
    (re.compile(r"3(?:0[0-5]|[68])"), (14,)),
)
"""First digits of the card schemes, and how many digits their numbers have (ISO/IEC 7812)."""


def is_bank_card(digits: str) -> bool:
    """Whether digits are the number of a bank card: scheme, length, check digit."""
    known = any(first.match(digits) and len(digits) in lengths for first, lengths in _CARDS)
    return known and luhn(digits) and len(set(digits)) > 2


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN: its check digits (ISO 13616, MOD 97)."""
    text = text.replace(" ", "")
    number = "".join(str(int(character, 36)) for character in text[4:] + text[:4])
    return 15 <= len(text) <= 34 and int(number) % 97 == 1


EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+/:-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@"
    r"((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,24}))(?![A-Za-z0-9_-])"
)
_NO_DOMAIN = frozenset(
    [
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "js",
        "css",
        "py",
        "html",
        "local",
        "invalid",
        "test",
        "example",
    ]
)


def emails(text: str) -> Iterator[Found]:
    """E-mail addresses, but for those of documentation (RFC 2606) and of repositories."""
    if "@" not in text:
        return
    for match in EMAIL.finditer(text):
        domain, top = match[1].lower(), match[2].lower()
        example = re.search(r"(?:^|\.)example\.(?:com|net|org)$", domain)
        repository = match[0].startswith("git@") and text[match.end() : match.end() + 1] == ":"
        if not example and top not in _NO_DOMAIN and not repository:
            yield Found("email", *match.span())


IDENTITY = re.compile(rf"{_HAN_BEFORE}\d{{17}}[\dXx]{_HAN_AFTER}")
OLD_IDENTITY = re.compile(rf"{_HAN_BEFORE}\d{{15}}{_HAN_AFTER}")


def identities(text: str) -> Iterator[Found]:
    """Chinese identity numbers; those of 15 digits, which have no check digit, after a word that
    says so."""
    for match in IDENTITY.finditer(text):
        if is_identity(match[0]):
            yield Found("identity", *match.span())
    for match in OLD_IDENTITY.finditer(text):
        named = last_word(text, match.start(), IDENTITY_WORDS) == 0
        if named and match[0][:2] in PROVINCES and _is_birthday("19" + match[0][6:12]):
            yield Found("identity", *match.span())


CARD = re.compile(rf"{_HAN_BEFORE}\d(?:[ -]?\d){{12,18}}{_HAN_AFTER}")
_NO_CARD = re.compile(
    r"订单|单号|流水|运单|快递|发票|編號|编号|序列号|訂單|条码|时间戳|学号|"
    r"\b(?:order|invoice|tracking|serial|isbn|timestamp|commit|ticket|sku|barcode)\b",
    re.IGNORECASE,
)


def bank_cards(text: str) -> Iterator[Found]:
    """Numbers of bank cards, unless a word before them says that they are something else."""
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        groups = re.split("[ -]", match[0])
        grouped = len(groups) == 1 or (len(groups[0]) == 4 and min(map(len, groups[:-1])) >= 4)
        if grouped and is_bank_card(digits) and last_word(text, match.start(), _NO_CARD) is None:
            yield Found("bank_card", *match.span())


IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])"
)


def ibans(text: str) -> Iterator[Found]:
    """International bank account numbers."""
    for match in IBAN.finditer(text):
        if is_iban(match[0]):
            yield Found("iban", *match.span())


SSN = re.compile(rf"{_BEFORE}(?!000|666|9)\d{{3}}-(?!00)\d{{2}}-(?!0000)\d{{4}}{_AFTER}")


def social_security_numbers(text: str) -> Iterator[Found]:
    """Social security numbers of the United States, in their written form."""
    for match in SSN.finditer(text):
        if last_word(text, match.start(), OTHER_WORDS) is None:
            yield Found("ssn", *match.span())


PASSPORT = re.compile(r"(?<![A-Za-z0-9])[A-Z]{1,2}\d{7,8}(?![A-Za-z0-9])")


def passports(text: str) -> Iterator[Found]:
    """Numbers of passports, after a word that says so."""
    for match in PASSPORT.finditer(text):
        if last_word(text, match.start(), PASSPORT_WORDS) == 0:
            yield Found("passport", *match.span())


MOBILE = re.compile(
    rf"{_HAN_BEFORE}(?:(?:\+|00)?86[- ]?)?1[3-9]\d([- ]?)\d{{4}}\1\d{{4}}{_HAN_AFTER}"
)
LANDLINE = re.compile(
    rf"{_HAN_BEFORE}(?:(?:\+|00)86[- ]?)?"
    r"(?:[(（](0(?:10|2[0-57-9]|[3-9]\d{2}))[)）] ?|(0(?:10|2[0-57-9]|[3-9]\d{2}))([- ]?))"
    rf"[2-8]\d{{2,3}}[- ]?\d{{4}}(?:[- ]?(?:转|ext\.?) ?\d{{1,5}})?{_HAN_AFTER}"
)
INTERNATIONAL = re.compile(r"(?<![\w+.])\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,6}(?![\w@])")
AMERICAN = re.compile(
    rf"{_BEFORE}(?:\([2-9]\d{{2}}\) ?|[2-9]\d{{2}}([-. ]))[2-9]\d{{2}}[-. ]\d{{4}}{_AFTER}"
)
NATIONAL = re.compile(rf"{_HAN_BEFORE}0\d{{2,4}}[ -]\d{{3,4}}(?:[ -]\d{{3,4}}){{1,2}}{_HAN_AFTER}")


def phones(text: str) -> Iterator[Found]:
    """Telephone numbers. `Other` words before a number, such as `order`, mean that it is none."""
    for pattern, part, needs_word in (
        (MOBILE, "1", False),
        (LANDLINE, "0", False),
        (INTERNATIONAL, "+", False),
        (AMERICAN, "", False),
        (NATIONAL, "0", True),
    ):
        for match in pattern.finditer(text) if part in text else ():
            said = last_word(text, match.start(), PHONE_WORDS, OTHER_WORDS)
            digits = sum(map(str.isdigit, match[0]))
            if pattern is INTERNATIONAL and not 8 <= digits <= 15:
                continue
            bare = pattern is LANDLINE and match[0].isdigit()
            spaced = pattern is AMERICAN and match[1] == " "
            if said == 0 or (said is None and not (needs_word or bare or spaced)):
                yield Found("phone", *match.span())


IPV4 = re.compile(r"(?<![A-Za-z0-9_.@-])(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_@-]|\.\d)")
IPV6 = re.compile(
    r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])"
)
MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])")

_MAC_PART = re.compile(r"[:-][0-9A-Fa-f]{2}[:-]")


def addresses(text: str) -> Iterator[Found]:
    """Public IP addresses and hardware addresses of machines. Numbers of versions are none, and
    addresses of private networks and of documentation tell nothing."""
    for pattern in (IPV4, IPV6):
        for match in pattern.finditer(text):
            before = text[max(0, match.start() - CONTEXT) : match.start()]
            if VERSION_WORDS.search(before) or not _is_public(match[0]):
                continue
            yield Found("address", *match.span())
    for match in MAC.finditer(text) if _MAC_PART.search(text) else ():
        if len(set(match[0])) > 3:
            yield Found("address", *match.span())


def _is_public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    # the well-known resolvers are named in every manual
    return found.is_global and address not in ("8.8.8.8", "8.8.4.4", "1.1.1.1", "114.114.114.114")


FINDERS: dict[str, Callable[[str], Iterator[Found]]] = {
    "email": emails,
    "identity": identities,
    "iban": ibans,
    "bank_card": bank_cards,
    "ssn": social_security_numbers,
    "passport": passports,
    "phone": phones,
    "address": addresses,
}
"""Kind → what finds it. Where two overlap, the first in this order counts."""
_MAY_HOLD = re.compile(r"\d[\d ().:-]{5}|@|[0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}")


def find(text: str, kinds: Sequence[str] = tuple(FINDERS)) -> list[Found]:
    """The personal data in a text, in order, without overlaps. None extends over a line end, so
    only lines that may hold one are searched."""
    found: list[Found] = []
    end = 0
    while (hint := _MAY_HOLD.search(text, end)) is not None:
        start = text.rfind("\n", 0, hint.start()) + 1
        end = text.find("\n", hint.end())
        end = len(text) if end < 0 else end
        line = text[start:end]
        in_line = without_overlaps(one for kind in kinds for one in FINDERS[kind](line))
        found += [Found(one.kind, one.start + start, one.stop + start) for one in in_line]
    return found


def without_overlaps(found: Iterator[Found]) -> list[Found]:
    """What overlaps nothing before it, in the order of the text."""
    taken: list[Found] = []
    for one in found:
        if all(one.stop <= other.start or one.start >= other.stop for other in taken):
            taken.append(one)
    return sorted(taken, key=lambda one: one.start)


def mask(text: str, found: Sequence[Found]) -> str:
    """The text with `<KIND>` in the place of what was found."""
    parts, end = [], 0
    for one in found:
        parts += [text[end : one.start], f"<{one.kind}>"]
        end = one.stop
    return "".join([*parts, text[end:]])


@STEPS.register("personal_data")
class PersonalData(Step):
    """Replace personal data by what they are, such as `<phone>`."""

    kind: Literal["personal_data"] = "personal_data"
    writes: ClassVar[Mapping[str, str]] = {"personal_data": "int32"}
    find: tuple[Kind, ...] = (
        "email", "identity", "iban", "bank_card", "ssn", "passport", "phone", "address",
    )  # fmt: skip
    """What is replaced. `identity`: Chinese identity numbers; `ssn`: those of the United States;
    `address`: of machines."""
    most: Positive | None = None
    """A text with more than so many is dropped: it may be a list of people. null: no limit."""

    def change(self, row: Row) -> Result:
        """The text with replacements, and how many there are."""
        order = [kind for kind in FINDERS if kind in self.find]
        found = find(row["text"], order)
        if self.most is not None and len(found) > self.most:
            return Drop(f"over {self.most} personal data", f"{len(found)}")
        title = row.get("title") or ""
        in_title = find(title, order)
        count = len(found) + len(in_title)
        if not count:
            return {"personal_data": 0}
        changed = {"personal_data": count, "text": mask(row["text"], found)}
        return {**changed, "title": mask(title, in_title)} if in_title else changed
