"""SVG drawings to PNG pictures: sizes, colours and backgrounds that depend on a key alone."""

import colorsys
import io
import re
from typing import Any

import resvg_py
from PIL import Image

from steps.common import Row, fraction

SIDE = 64
ALONE = re.compile(r"<svg[^>]*>")


def shape_file(drawings: dict[str, Any], name: str) -> str | None:
    """The SVG file of an icon in an Iconify set; None for an alias that turns another picture."""
    alias = drawings.get("aliases", {}).get(name)
    if alias is not None:
        return shape_file(drawings, alias["parent"]) if set(alias) <= {"parent"} else None
    icon = drawings["icons"].get(name)
    if icon is None:
        return None
    width, height = (icon.get(side, drawings.get(side, 16)) for side in ("width", "height"))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{icon["body"]}</svg>'


def colour(key: str, purpose: str, lightness: tuple[float, float]) -> tuple[int, int, int]:
    """A colour that depends on the key, between two lightnesses."""
    low, high = lightness
    light = low + (high - low) * fraction("light", purpose, key)
    saturation = 0.2 + 0.8 * fraction("saturation", purpose, key)
    rgb = colorsys.hls_to_rgb(fraction("hue", purpose, key), light, saturation)
    return tuple(round(255 * part) for part in rgb)


def draw(svg: str, side: int) -> Image.Image:
    """An SVG drawing as a picture of this side, with transparency."""
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg, width=side, height=side))))


def _placed(svg: str, key: str, paper: tuple[int, ...], full: float) -> Row:
    """A drawing on paper, as a cell. `full`: the least share of the side that it takes."""
    side = round(SIDE * (full + (1 - full) * fraction("size", key)))
    drawn = draw(svg, side).convert("RGBA")
    room_x, room_y = SIDE - drawn.width, SIDE - drawn.height
    corner = (round(room_x * fraction("x", key)), round(room_y * fraction("y", key)))
    canvas = Image.new("RGB", (SIDE, SIDE), paper)
    canvas.paste(drawn, corner, drawn)
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{key}.png"}


def coloured(svg: str, key: str, background: bool) -> Row:
    """A drawing that has colours of its own: filling a white square, or somewhere on a light
    colour."""
    if not background:
        return _placed(svg, key, (255, 255, 255), 1.0)
    return _placed(svg, key, colour(key, "paper", (0.6, 0.97)), 0.6)


def tinted(svg: str, key: str, style: str) -> Row:
    """A drawing of one colour: `black` on white, `ink` of a dark colour on a light one, or `light`
    on a dark one."""
    ink, paper = {
        "black": ((0, 0, 0), (255, 255, 255)),
        "ink": (colour(key, "ink", (0.15, 0.5)), colour(key, "paper", (0.85, 1.0))),
        "light": (colour(key, "ink", (0.75, 1.0)), colour(key, "paper", (0.1, 0.4))),
    }[style]
    drawn = svg.replace("currentColor", "#{:02x}{:02x}{:02x}".format(*ink))
    return _placed(drawn, key, paper, 1.0 if style == "black" else 0.6)
