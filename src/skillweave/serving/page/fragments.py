"""Pieces of HTML: what was found, classes with their shares, and which part of a model ran.

Everything that comes from data or from a person is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any

from skillweave.reporting.formatting import format_effect, format_interval
from skillweave.retrieval.vectors import Hit
from skillweave.serving.collections import Collection
from skillweave.serving.models import ServedModel, Usage
from skillweave.serving.routes.search import address

LONGEST = 4000
"""Characters of a function that are shown."""
Words = Mapping[str, str]


def results(collection: Collection, hits: Sequence[Hit], words: Words) -> str:
    """What was found, as a list of cards."""
    if not hits:
        return message(words["nothing"])
    modality = collection.index.modality
    cards = "".join(_card(collection, hit, words) for hit in hits)
    return f'<ol class="sw-results sw-of-{modality}">{cards}</ol>'


def _card(collection: Collection, hit: Hit, words: Words) -> str:
    entry, modality = hit.entry, collection.index.modality
    source, caption = escape(address(collection, entry.key)), escape(entry.caption)
    name = escape(entry.caption or entry.key)
    if modality == "image":
        shown = f'<img src="{source}" alt="{name}" loading="lazy">'
    elif modality == "sound":
        shown = f'<audio src="{source}" controls preload="none" aria-label="{name}"></audio>'
    elif modality == "video":
        shown = (
            f'<video src="{source}" aria-label="{name}" controls loop muted autoplay playsinline'
            ' preload="metadata"></video>'
        )
    elif modality == "code":
        content, _ = collection.file(entry.key)
        shown = highlighted(content.decode("utf-8", "replace")[:LONGEST])
    else:
        shown = f"<blockquote>{caption}</blockquote>"
    told = "" if modality == "text" else f"<p>{caption or escape(entry.key)}</p>"
    share = max(0, min(100, round(100 * hit.score)))
    meter = (
        f'<div class="sw-score" title="{escape(words["score"])}"><span style="width:{share}%">'
        f"</span><b>{hit.score:.2f}</b></div>"
    )
    return f"<li>{shown}{told}{meter}</li>"


@lru_cache(maxsize=1000)
def highlighted(code: str) -> str:
    """A function with colours (of classes that `STYLE` defines)."""
    from pygments import highlight  # comes with rich
    from pygments.formatters.html import HtmlFormatter
    from pygments.lexers import guess_lexer
    from pygments.lexers.python import PythonLexer
    from pygments.util import ClassNotFound

    try:
        lexer = PythonLexer() if "def " in code or "import " in code else guess_lexer(code)
    except ClassNotFound:
        lexer = PythonLexer()
    return highlight(code, lexer, HtmlFormatter(cssclass="sw-code", nowrap=False))


def code_style() -> str:
    """The colours of functions, in light and in dark."""
    from pygments.formatters.html import HtmlFormatter

    light = HtmlFormatter(style="friendly").get_style_defs(".sw-code")
    dark = HtmlFormatter(style="monokai").get_style_defs(".dark .sw-code")
    return f"{light}\n{dark}"


def classes(shares: Mapping[str, float]) -> str:
    """Labels with their shares, the largest first, as bars."""
    rows = "".join(
        f'<li><span class="sw-label">{escape(name)}</span>'
        f'<span class="sw-bar"><i style="width:{100 * share:.1f}%"></i></span>'
        f"<b>{100 * share:.1f} %</b></li>"
        for name, share in sorted(shares.items(), key=lambda pair: -pair[1])
    )
    return f'<ol class="sw-classes">{rows}</ol>'


def answer(text: str, shares: Mapping[str, float]) -> str:
    """The answer to a question, and how probable it and others are, where that is known."""
    return f'<p class="sw-answer" role="status">{escape(text)}</p>{classes(shares)}'


def interference(name: str, found: Mapping[str, Any] | None, words: Words) -> str:
    """How the tasks of a model influence each other: what `Interference.to_json` returned, as a
    heat map for each block; or how to get it."""
    head = f"<h3>{escape(name)}</h3>"
    if found is None:
        return (
            f"{head}{message(words['no_effects'])}<p><code>skillweave interference RUN</code></p>"
        )
    maps = "".join(_heat_map(found["tasks"], block, words) for block in found["blocks"])
    return f'{head}<p class="sw-message">{escape(words["effects"])}</p>{maps}'


def _heat_map(tasks: Sequence[str], block: Mapping[str, Any], words: Words) -> str:
    """Columns have the numbers of their tasks, so that a phone shows them."""
    numbers = range(len(tasks))
    heads = "".join(
        f'<th scope="col" title="{escape(tasks[j])}" aria-label="{escape(tasks[j])}">{j + 1}</th>'
        for j in numbers
    )
    rows = "".join(
        f'<tr><th scope="row"><b>{i + 1}</b> {escape(tasks[i])}</th>'
        + "".join(_effect(tasks, block, i, j, words) for j in numbers)
        + "</tr>"
        for i in numbers
    )
    corner = f'<td class="sw-corner">{escape(words["trained"])} →</td>'
    return (
        f'<figure class="sw-heat"><figcaption>{escape(block["block"])}</figcaption>'
        f'<div class="sw-scroll"><table tabindex="0"><thead><tr>{corner}{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></figure>"
    )


def _effect(tasks: Sequence[str], block: Mapping[str, Any], i: int, j: int, words: Words) -> str:
    value, (low, high) = block["pooled"][i][j], block["pooled_intervals"][i][j]
    pair = f"{tasks[j]} {words['on']} {tasks[i]}"
    if value is None:
        told = escape(f"{pair}: {words['none_shared']}")
        return f'<td title="{told}" aria-label="{told}">–</td>'
    if i == j:  # by definition the measure of all others, so it has no colour
        told = escape(f"{pair}: {format_effect(value)}")
        return f'<td title="{told}" aria-label="{told}">{format_effect(value)}</td>'
    certain = low is not None and high is not None and not low <= 0 <= high
    kind, interval = "helps" if value > 0 else "harms", format_interval((low, high))
    verdict = words[kind] if certain else words["uncertain"]
    told = escape(f"{pair}: {verdict}, {format_effect(value)} ({interval})")
    strength = min(abs(value), 1.0) * (80 if certain else 25)
    return (
        f'<td class="sw-{kind}" style="--strength:{strength:.0f}%" title="{told}"'
        f' aria-label="{told}">{format_effect(value)}<small>{interval}</small></td>'
    )


def part_that_ran(model: ServedModel, usage: Usage, words: Words) -> str:
    """A pillar for each modality of the model; those that ran are lit. What it cost below."""
    pillars = "".join(
        f'<li class="{"on" if name in usage.modalities else "off"}"><i></i>'
        f"<span>{escape(words[name])}</span></li>"
        for name in model.modalities()
    )
    total = model.parameters(None)
    share = 100 * usage.parameters / total
    return (
        f'<section class="sw-ran" role="status" aria-label="{escape(words["ran"])}">'
        f"<h3>{escape(words['ran'])}</h3><ul>{pillars}</ul>"
        f'<div class="sw-share"><i style="width:{share:.1f}%"></i></div>'
        f"<p><b>{millions(usage.parameters)}</b> {words['of']} {millions(total)}"
        f" {words['parameters']} ({share:.0f} %) · <b>{1000 * usage.inference_seconds:.0f}</b>"
        f" {words['milliseconds']} · {1000 * usage.queue_seconds:.0f} {words['waiting']}</p>"
        f"<p><code>{escape(usage.task)}</code></p></section>"
    )


def about_model(model: ServedModel, words: Words) -> str:
    """A table of the tasks, each with the modalities and parameters that it activates."""
    total = model.parameters(None)
    rows = "".join(
        f"<tr><th scope=row><code>{escape(name)}</code></th><td>"
        + "".join(
            f'<span class="sw-chip {"on" if one in model.modalities(name) else "off"}">'
            f"{escape(words[one])}</span>"
            for one in model.modalities()
        )
        + f"</td><td>{millions(model.parameters(name))}"
        f" ({100 * model.parameters(name) / total:.0f} %)</td></tr>"
        for name in model.model.config.tasks
    )
    heads = "".join(
        f"<th scope=col>{escape(words[name])}</th>" for name in ("task", "reads", "active")
    )
    return (
        f"<h3>{escape(model.name)} · {millions(total)} {words['parameters']}</h3>"
        f'<div class="sw-scroll"><table class="sw-table"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def message(text: str) -> str:
    """A sentence for people."""
    return f'<p class="sw-message" role="status">{escape(text)}</p>'


def millions(count: int) -> str:
    """A number of parameters."""
    return f"{count / 1e6:.2f} M" if count >= 10_000 else f"{count:,}"
