"""Step `secrets`: keys and passwords in code and texts."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from skillweave.corpus.step import STEPS, Drop, Result, Row, Step
from skillweave.corpus.steps.personal_data import Found, mask, without_overlaps

PATTERNS = {
    "private_key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----[\s\S]{1,8000}?"
    r"-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "aws_key": r"(?<![A-Z0-9])(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}(?![A-Z0-9])",
    "github_token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{50,255})\b",
    "gitlab_token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "slack_token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|"
    r"https://hooks\.slack\.com/services/[A-Za-z0-9/]{30,}",
    "google_key": r"\bAIza[A-Za-z0-9_-]{35}\b",
    "stripe_key": r"\b[rs]k_live_[A-Za-z0-9]{20,}\b",
    "api_key": r"\bsk-(?:proj-|ant-[a-z0-9]+-)?[A-Za-z0-9_-]{32,}|\bhf_[A-Za-z0-9]{30,}\b|"
    r"\bnpm_[A-Za-z0-9]{36}\b|\bpypi-[A-Za-z0-9_-]{50,}",
    "aliyun_key": r"\bLTAI[A-Za-z0-9]{12,20}\b",
    "jwt": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "url_password": r"(?<=://)[A-Za-z0-9._%-]{1,64}:[^\s:/@\"'<>{}$]{3,64}(?=@[A-Za-z0-9.-]+)",
}
"""Kind → its form."""
PARTS = {
    "private_key": ("PRIVATE KEY",),
    "aws_key": ("AKIA", "ASIA", "AROA", "AIDA"),
    "github_token": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    "gitlab_token": ("glpat-",),
    "slack_token": ("xox", "hooks.slack.com"),
    "google_key": ("AIza",),
    "stripe_key": ("k_live_",),
    "api_key": ("sk-", "hf_", "npm_", "pypi-"),
    "aliyun_key": ("LTAI",),
    "jwt": ("eyJ",),
    "url_password": ("://",),
}
"""Kind → what a secret of it contains. To look for that first is many times as fast."""
ASSIGNED_PARTS = ("pass", "pwd", "secret", "token", "key", "密码", "口令", "密钥")
_KNOWN = {kind: re.compile(pattern) for kind, pattern in PATTERNS.items()}
ASSIGNED = re.compile(
    r"(?:password|passwd|pwd|secret|token|api_?key|access_?key|auth_?token|private_?key|client_?secret|"
    r"密码|口令|密钥)[\"']?\s*(?::=|=>|[:=：])\s*[\"']?([^\s\"'`,;)}\]<>]{8,200})",
    re.IGNORECASE,
)
"""A value that is given to a name of a secret."""
PLACEHOLDER = re.compile(
    r"^(?:\$|\{|%|<|os\.|env|process\.|config|self\.|settings|get|read|str|none|null|true|false|your|my|xxx|"
    r"changeme|example|test|dummy|placeholder|\*+$|\.\.\.)|[(\[]",
    re.IGNORECASE,
)


def entropy(text: str) -> float:
    """Shannon entropy of the characters of a text, in bits a character."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def find_secrets(text: str, least_entropy: float) -> list[Found]:
    """The secrets in a text, in order, without overlaps."""
    return without_overlaps(_find(text, least_entropy))


def _find(text: str, least_entropy: float) -> Iterator[Found]:
    for kind, pattern in _KNOWN.items():
        if any(part in text for part in PARTS[kind]):
            for match in pattern.finditer(text):
                yield Found(kind, *match.span())
    lower = text.lower()
    if not any(part in lower for part in ASSIGNED_PARTS):
        return
    for match in ASSIGNED.finditer(text):
        value = match[1]
        mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
        if mixed and entropy(value) >= least_entropy and not PLACEHOLDER.search(value):
            yield Found("secret", *match.span(1))


@STEPS.register("secrets")
class Secrets(Step):
    """Replace keys of services, private keys and passwords by what they are, such as
    `<github_token>`, or drop texts with them."""

    kind: Literal["secrets"] = "secrets"
    writes: ClassVar[Mapping[str, str]] = {"secrets": "int32"}
    drop: bool = False
    """Drop texts with secrets."""
    least_entropy: float = 3.0
    """The smallest entropy, in bits a character, of a value that is given to a name such as
    `password`. Words have less than random values."""

    def change(self, row: Row) -> Result:
        """The text with replacements, and how many there are."""
        found = find_secrets(row["text"], self.least_entropy)
        if found and self.drop:
            return Drop("secrets", ", ".join(sorted({one.kind for one in found})))
        changed = {"secrets": len(found)}
        return {**changed, "text": mask(row["text"], found)} if found else changed
