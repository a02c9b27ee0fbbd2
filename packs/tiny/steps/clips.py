"""clips.parquet: short h264 clips of pictures that move, grow or spin, with captions by template.

The motions and captions are those of the quickstart's clips; sizes, speeds, places and backgrounds
vary more. Pictures are those of the other steps, hence without what the quickstart tests with.
"""

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from steps import emoji, icons
from steps.common import Row, fraction, split_of
from steps.drawing import colour, draw, shape_file
from steps.lexicon import lexicon

SIDE, FRAMES, RATE, TURN = 64, 8, 4, 45
ENCODER = {"crf": "20", "preset": "veryfast", "tune": "animation", "bf": "0", "threads": "1"}
CAPTIONS = {
    "left": ("{}向左移动", "{} moving left"),
    "right": ("{}向右移动", "{} moving right"),
    "up": ("{}向上移动", "{} moving up"),
    "down": ("{}向下移动", "{} moving down"),
    "grow": ("{}变大", "{} growing"),
    "spin": ("{}旋转", "{} spinning"),
}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
MOTIONS = tuple(CAPTIONS)
ICON_SHARE = 0.2
"""Share of the icons, of which many look alike, that get clips."""


def frames(sprite: Image.Image, key: str, motion: str) -> Iterator[Image.Image]:
    """The pictures of a clip. Size, place and background depend on the key."""
    paper = colour(key, "paper", (0.75, 1.0))
    side = round(SIDE * (0.35 + 0.3 * fraction("side", key)))
    room = SIDE - side
    across, along = (round(room * fraction(axis, key)) for axis in ("across", "along"))
    start = 0.25 * fraction("start", key)
    for number in range(FRAMES):
        done = start + (1 - start) * number / (FRAMES - 1)
        path = round(room * (1 - done if motion in ("left", "up") else done))
        x = path if motion in ("left", "right") else across
        y = path if motion in ("up", "down") else along
        shown = sprite.resize((side, side), Image.Resampling.LANCZOS)
        if motion == "grow":
            size = round(SIDE * (0.2 + 0.7 * done))
            shown = sprite.resize((size, size), Image.Resampling.LANCZOS)
            x, y = ((SIDE - size) // 2,) * 2
        elif motion == "spin":
            shown = shown.rotate(-TURN * number, resample=Image.Resampling.BICUBIC)
        frame = Image.new("RGB", (SIDE, SIDE), paper)
        frame.paste(shown, (x, y), shown)
        yield frame


def encode(pictures: Iterator[Image.Image]) -> bytes:
    """An h264 mp4 of RATE frames a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE), options=ENCODER)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return buffer.getvalue()


def spoken(name: str, chinese: bool) -> str:
    """A name of CLDR as a phrase: `旗: 中国` as `中国旗`, `flag: China` as `flag of China`."""
    head, colon, tail = name.partition(": ")
    if not colon:
        return name
    if chinese:
        return {"旗": tail + head, "按键": head + tail}.get(head, f"{tail}的{head}")
    return head + {"flag": " of ", "keycap": " "}.get(head, ", ") + tail


def drawings(cache: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """(key, group, SVG, Chinese name, English name) of what moves."""
    chinese, english = (emoji.annotations(cache, language) for language in ("zh", "en"))
    for name in emoji.SETS:
        pictures, codes = emoji.icon_set(cache, name)
        for unified, icon, text in emoji.trained_on(codes, english):
            if svg := shape_file(pictures, icon):
                names = chinese[text]["tts"][0], english[text]["tts"][0]
                yield (
                    f"{name}:{unified}",
                    text,
                    svg,
                    spoken(names[0], True),
                    spoken(names[1], False),
                )
    known = lexicon(cache)
    for icon in (icon for read in icons.SETS for icon in read(cache)):
        key, group = f"{icon.source}:{icon.name}", " ".join(icon.words)
        if fraction("clip", key) < ICON_SHARE and (
            words := list(icons.translate(icon.words, known))
        ):
            ink = "#{:02x}{:02x}{:02x}".format(*colour(key, "ink", (0.1, 0.45)))
            yield key, group, icon.svg.replace("currentColor", ink), words[0], group


def rows(cache: Path) -> Iterator[Row]:
    """Two clips of each drawing: a motion, and the opposite or another."""
    for key, group, svg, name_zh, name_en in drawings(cache):
        sprite = draw(svg, SIDE).convert("RGBA")
        first = MOTIONS[int(len(MOTIONS) * fraction("motion", key))]
        others = [motion for motion in MOTIONS if motion != first]
        second = OPPOSITE.get(first) if fraction("opposite", key) < 0.5 else None
        second = second or others[int(len(others) * fraction("other", key))]
        for motion in (first, second):
            yield {
                "key": f"{key}:{motion}",
                "group": group,
                "split": split_of("pictures", group),
                "video": {"bytes": encode(frames(sprite, key, motion)), "path": f"{motion}.mp4"},
                "text_zh": CAPTIONS[motion][0].format(name_zh),
                "text_en": CAPTIONS[motion][1].format(name_en),
                "picture": key,
            }
