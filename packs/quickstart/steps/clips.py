"""clips.parquet: short h264 clips of one emoji moving on a plain background, captioned by
template."""

import colorsys
import io
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
from PIL import Image

from . import emoji
from .common import MEDIA, Row, digest, fraction

FIELDS = (
    ("video", MEDIA),
    ("caption_zh", pa.string()),
    ("caption_en", pa.string()),
    ("motion", pa.string()),
    ("emoji_key", pa.string()),
    ("name_zh", pa.string()),
    ("name_en", pa.string()),
)
SIDE, SPRITE, SMALL, LARGE = 64, 32, 14, 58
FRAMES, RATE = 8, 4
AXIS = {"left": "across", "right": "across", "up": "along", "down": "along"}
SIDESTEP = 8
TURN = 45
CANVAS = 92
MIN_TURN_CHANGE = 8.0
ENCODER = {
    "crf": "20",
    "preset": "veryslow",
    "tune": "animation",
    "bf": "0",
    "g": "250",
    "threads": "1",
}
CAPTIONS = {
    "left": ("{}向左移动", "{} moving left"),
    "right": ("{}向右移动", "{} moving right"),
    "up": ("{}向上移动", "{} moving up"),
    "down": ("{}向下移动", "{} moving down"),
    "grow": ("{}变大", "{} growing"),
    "spin": ("{}旋转", "{} spinning"),
}
PAIRS = tuple(itertools.combinations(CAPTIONS, 2))
PAIRS_WITHOUT_SPIN = tuple(pair for pair in PAIRS if "spin" not in pair)


def spoken_names(name_zh: str, name_en: str) -> tuple[str, str]:
    """Turn CLDR names with a colon into phrases: `旗: 中国` -> `中国旗`, `flag: China` -> `flag of
    China`."""
    head_zh, colon_zh, tail_zh = name_zh.partition(": ")
    head_en, colon_en, tail_en = name_en.partition(": ")
    if colon_zh and head_zh in ("旗", "按键"):
        chinese = tail_zh + head_zh if head_zh == "旗" else head_zh + tail_zh
    else:
        chinese = f"{tail_zh}的{head_zh}" if colon_zh else name_zh
    if not colon_en:
        return chinese, name_en
    joint = {"flag": " of ", "keycap": " "}.get(head_en, ", ")
    return chinese, head_en + joint + tail_en


def background(key: str, motion: str) -> tuple[int, int, int]:
    """Return a light colour, the same for opposite motions of one emoji."""
    red, green, blue = colorsys.hsv_to_rgb(
        fraction("hue", key, AXIS.get(motion, motion)), 0.22, 0.96
    )
    return round(red * 255), round(green * 255), round(blue * 255)


def turn(picture: Image.Image, steps: int) -> Image.Image:
    """Rotate a 64-pixel picture clockwise on a canvas of 92 pixels, so that no corner is cut
    off."""
    canvas = Image.new("RGBA", (CANVAS, CANVAS))
    canvas.paste(picture, ((CANVAS - picture.width) // 2, (CANVAS - picture.height) // 2))
    return canvas.rotate(-TURN * steps, resample=Image.Resampling.BICUBIC)


def turns_visibly(picture: Image.Image) -> bool:
    """Tell whether a rotation by one step changes the picture enough to be seen."""
    plain = Image.new("RGBA", picture.size, (200, 200, 200, 255))
    still = np.asarray(Image.alpha_composite(plain, picture), dtype=np.float32)
    turned = turn(picture, 1).crop((14, 14, 78, 78))
    moved = np.asarray(Image.alpha_composite(plain, turned), dtype=np.float32)
    return float(np.abs(still - moved).mean()) >= MIN_TURN_CHANGE


def draw(picture: Image.Image, key: str, motion: str) -> list[Image.Image]:
    """Draw the clip's frames. Opposite motions show the same pictures in opposite order."""
    room = SIDE - SPRITE
    offset = (
        room // 2
        + digest("sidestep", key, AXIS.get(motion, motion)) % (2 * SIDESTEP + 1)
        - SIDESTEP
    )
    frames = []
    for number in range(FRAMES):
        done = number / (FRAMES - 1)
        travelled = round(room * (1 - done if motion in ("left", "up") else done))
        side, sprite, corner = SPRITE, picture, (offset, offset)
        if motion in ("left", "right"):
            corner = (travelled, offset)
        elif motion in ("up", "down"):
            corner = (offset, travelled)
        elif motion == "grow":
            side = round(SMALL + (LARGE - SMALL) * done)
            corner = ((SIDE - side) // 2, (SIDE - side) // 2)
        else:
            sprite, side = turn(picture, number), SPRITE * CANVAS // SIDE
            edge = offset - (side - SPRITE) // 2
            corner = (edge, edge)
        small = sprite.resize((side, side), Image.Resampling.LANCZOS)
        frame = Image.new("RGB", (SIDE, SIDE), background(key, motion))
        frame.paste(small, corner, small)
        frames.append(frame)
    return frames


def encode(frames: list[Image.Image]) -> bytes:
    """Encode frames as an h264 mp4 of RATE frames per second; one thread, so that bytes are
    repeatable."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE), options=ENCODER)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return buffer.getvalue()


def choose_motions(
    entries: list[Row], pictures: dict[str, Image.Image]
) -> dict[str, tuple[str, str]]:
    """Give each emoji two motions, in turn over the 15 pairs within its split, so that motions
    balance."""
    chosen: dict[str, tuple[str, str]] = {}
    turns = {
        (split, spins): 0 for split in ("train", "validation", "test") for spins in (True, False)
    }
    for entry in sorted(entries, key=lambda row: digest("motions", row["key"])):
        spins = turns_visibly(pictures[entry["key"]])
        pairs = PAIRS if spins else PAIRS_WITHOUT_SPIN
        turn = turns[entry["split"], spins]
        turns[entry["split"], spins] = turn + 1
        chosen[entry["key"]] = pairs[turn % len(pairs)]
    return chosen


def build(cache: Path) -> list[Row]:
    """Return two clips for each emoji of emoji.parquet, with the same groups and splits."""
    entries = emoji.build(cache)
    pictures = {
        row["key"]: Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGBA") for row in entries
    }
    chosen = choose_motions(entries, pictures)
    rows: list[Row] = []
    for entry in entries:
        chinese, english = spoken_names(entry["name_zh"], entry["name_en"])
        for motion in chosen[entry["key"]]:
            key = f"{entry['key']}:{motion}"
            frames = draw(pictures[entry["key"]], entry["key"], motion)
            rows.append(
                {
                    "key": key,
                    "group": entry["group"],
                    "split": entry["split"],
                    "video": {"bytes": encode(frames), "path": f"{entry['key']}-{motion}.mp4"},
                    "caption_zh": CAPTIONS[motion][0].format(chinese),
                    "caption_en": CAPTIONS[motion][1].format(english),
                    "motion": motion,
                    "emoji_key": entry["key"],
                    "name_zh": entry["name_zh"],
                    "name_en": entry["name_en"],
                }
            )
    return rows
