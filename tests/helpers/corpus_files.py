"""Pictures, pages and web archives for the corpus pipeline."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

HTML = {"Content-Type": "text/html"}

PAGE = """<html><body>
<nav><img src="logo.png" alt="our logo image"></nav>
<p>The first paragraph tells of the river and of the city.</p>
<figure><img src="pictures/a%20b.png"><figcaption>A boat on the river</figcaption></figure>
<p>Another paragraph stands here and is long enough.</p>
<img src="c.png" alt="ok">
<p>no</p>
<img data-src="d.png" src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="A bridge in the evening">
<img src="http://elsewhere.org/x.png" alt="on another server">
<img src="../secret.png" alt="outside of the folder">
<img src="data:image/png;base64,{inline}" title="an inline picture">
</body></html>"""


def photo(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A smooth picture: random colours at 8 × 6 points, enlarged."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def warc(*records: tuple[str, dict[str, str], bytes]) -> bytes:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    stream = io.BytesIO()
    writer = WARCWriter(stream, gzip=True)
    for url, headers, body in records:
        http = StatusAndHeaders(headers.pop("status", "200 OK"), list(headers.items()), "HTTP/1.1")
        writer.write_record(
            writer.create_warc_record(url, "response", payload=io.BytesIO(body), http_headers=http)
        )
    return stream.getvalue()
