"""Pieces of HTML: what was found, classes with their shares, and which part of a model ran.

Everything that comes from data or from a person is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape

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
