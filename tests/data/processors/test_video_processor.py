import contextlib
import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skillweave.config.data import AugmentConfig, LimitsConfig
from skillweave.config.streams import VideoStream
from skillweave.data.processors import BadInput
from skillweave.data.processors.video import VideoProcessor, choose_frames

STREAM = VideoStream(size=32, tubelet=(3, 8, 8), frames_per_second=4, max_seconds=4)
PROCESS = VideoProcessor(STREAM)
CODECS = [
    ("mp4", "h264", "yuv420p"),
    ("webm", "libvpx-vp9", "yuv420p"),
    ("matroska", "mpeg4", "yuv420p"),
    ("mov", "h264", "yuv420p"),
    ("avi", "mpeg4", "yuv420p"),
    ("gif", "gif", "rgb8"),
    ("mpegts", "h264", "yuv420p"),
]


def greys(features):
    """The mean grey of each frame, 0..255."""
    return ((features.data.mean((0, 2, 3)) + 1) * 127.5).numpy()


@pytest.mark.parametrize(("kind", "codec", "pixels"), CODECS)
def test_formats_give_the_frames_in_order(clip, kind, codec, pixels):
    features = PROCESS(clip(6, kind, codec, pixels=pixels))
    assert (
        features.data.shape == (3, 6, 32, 32)
        and features.data.dtype == torch.float32
        and features.length == 33
    )
    np.testing.assert_allclose(
        greys(features), [0, 20, 40, 60, 80, 100], atol=12 if kind == "gif" else 5
    )


def test_a_clip_is_read_at_the_stream_s_rate(clip):
    # 24 frames a second at 4 are frames 0, 6, 12, ...; grey 3 per frame.
    frames = [np.full((32, 48, 3), 3 * i, np.uint8) for i in range(36)]
    np.testing.assert_allclose(
        greys(PROCESS(clip(frames, rate=24))), [0, 18, 36, 54, 72, 90], atol=5
    )


def test_evaluation_takes_the_middles_of_equal_parts(clip):
    # 12 frames in six parts of two: the second of each.
    np.testing.assert_allclose(greys(PROCESS(clip(12))), [20, 60, 100, 140, 180, 220], atol=5)
    assert choose_frames(30, 6) == [2, 7, 12, 17, 22, 27]


def test_fewer_frames_than_wanted_are_repeated_evenly(clip):
    np.testing.assert_allclose(greys(PROCESS(clip(3))), [0, 0, 20, 20, 40, 40], atol=5)
    assert choose_frames(1, 6) == [0] * 6 and choose_frames(4, 6) == [0, 1, 1, 2, 3, 3]


def test_training_takes_a_sorted_sample_that_varies():
    clip = np.arange(12, dtype=np.uint8)[:, None, None, None] * 20 + np.zeros(
        (12, 32, 32, 3), np.uint8
    )
    seen = set()
    for seed in range(20):
        frames = np.rint(greys(PROCESS(clip, np.random.default_rng(seed))) / 20).astype(int)
        assert (np.diff(frames) > 0).all()
        seen |= set(frames)
    assert seen == set(range(12))


@given(st.integers(1, 200), st.integers(1, 30), st.one_of(st.none(), st.integers(0, 99)))
def test_chosen_frames_exist_and_are_in_order(available, wanted, seed):
    chosen = choose_frames(available, wanted, None if seed is None else np.random.default_rng(seed))
    assert (
        len(chosen) == wanted
        and chosen == sorted(chosen)
        and chosen[0] >= 0
        and chosen[-1] < available
    )
    counts = np.bincount(chosen, minlength=available)
    assert counts.max() - counts.min() <= 1 or available > wanted


def test_what_lies_beyond_max_seconds_is_cut_or_skipped(clip):
    short = VideoStream(size=32, tubelet=(3, 8, 8), frames_per_second=4, max_seconds=1.5)
    data = clip(12)
    # Frames 0 to 5 begin before 1.5 s; frame 6 begins there and lies beyond.
    np.testing.assert_allclose(greys(VideoProcessor(short)(data)), [0, 20, 40, 60, 80, 100], atol=5)
    assert VideoProcessor(short, LimitsConfig(too_long="skip"))(clip(6)).length == 33
    with pytest.raises(BadInput, match=r"longer than the stream's max_seconds 1\.5"):
        VideoProcessor(short, LimitsConfig(too_long="skip"))(data)
    assert VideoProcessor(STREAM, LimitsConfig(too_long="skip"))(data).length == 33


def test_the_centre_of_wide_frames_is_cut_out(clip):
    frame = np.zeros((32, 96, 3), np.uint8)
    frame[:, 32:64] = 200
    assert greys(PROCESS(clip([frame] * 4, width=96))).min() > 190


def test_large_frames_are_scaled(clip):
    frame = np.zeros((160, 160, 3), np.uint8)
    frame[:, 80:] = 240
    data = (PROCESS(clip([frame] * 2, width=160, height=160)).data + 1) * 127.5
    assert data[..., :15].max() < 25 and data[..., 17:].min() > 215


def test_one_draw_of_change_holds_for_the_whole_clip():
    frame = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    processor = VideoProcessor(STREAM, augment=AugmentConfig(shift=0.3, scale=0.3, colour=0.3))
    data = processor(np.stack([frame] * 6), np.random.default_rng(3)).data
    assert all(torch.equal(data[:, 0], data[:, i]) for i in range(6))
    assert not torch.equal(data, PROCESS(np.stack([frame] * 6)).data)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_clip(clip, seed):
    processor = VideoProcessor(STREAM, augment=AugmentConfig(shift=0.3, scale=0.3, colour=0.3))
    data = clip(12)
    first, second = (processor(data, np.random.default_rng(seed)).data for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(processor(data).data, PROCESS(data).data)


def test_limits_are_settings(clip):
    data = clip(12)
    for limits, why in [
        (LimitsConfig(max_pixels=1000), "48 × 32 pixels exceed max_pixels 1000"),
        (LimitsConfig(max_seconds=2), r"3\.0 s exceed max_seconds 2"),
        (LimitsConfig(max_bytes=100), "exceed max_bytes 100"),
    ]:
        with pytest.raises(BadInput, match=why):
            VideoProcessor(STREAM, limits)(data)


def test_a_gif_that_states_a_huge_canvas_is_refused(clip):
    data = bytearray(clip(3, "gif", "gif", pixels="rgb8"))
    data[6:10] = b"\xff\xff\xff\xff"
    with pytest.raises(BadInput):
        PROCESS(bytes(data))


def test_sound_alone_has_no_video_track(recording, tone):
    for kind in ("WAV", "MP3", "OGG"):
        with pytest.raises(BadInput, match="no video track"):
            PROCESS(recording(tone(), kind=kind))


def test_a_file_without_frames_is_bad_input(clip):
    for kind, codec in (("mp4", "mpeg4"), ("matroska", "mpeg4"), ("avi", "mpeg4")):
        with pytest.raises(BadInput, match=r"0 frames|no video track|End of file"):
            PROCESS(clip(0, kind, codec))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "0 bytes"),
        (b"plain text", "not a readable"),
        (None, "NoneType"),
        ("/no/such.mp4", "no such file"),
        (np.zeros((0, 8, 8, 3), np.uint8), "uint8"),
        (np.zeros((2, 8, 8), np.uint8), "uint8"),
        (np.zeros((2, 8, 8, 3)), "float64"),
        (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
            "not a readable",
        ),
    ],
)
def test_what_is_no_clip_is_bad_input(value, why):
    with pytest.raises(BadInput, match=why):
        PROCESS(value)


@pytest.mark.parametrize(
    ("kind", "codec"),
    [
        ("mp4", "h264"),
        ("webm", "libvpx-vp9"),
        ("matroska", "mpeg4"),
        ("avi", "mpeg4"),
        ("gif", "gif"),
        ("mpegts", "h264"),
        ("vob", "mpeg2video"),
        ("flv", "flv"),
        ("asf", "wmv2"),
    ],
)
def test_a_truncated_clip_is_bad_input(clip, kind, codec):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(25)]
    data = clip(frames, kind, codec, rate=25, pixels="rgb8" if kind == "gif" else "yuv420p")
    assert PROCESS(data).length == 33
    for share in (0.05, 0.5, 0.75, 0.9):
        cut = int(len(data) * share)
        # A cut between two frames of a transport stream, where packets of 188 bytes end, is no fault
        # that can be seen. The encoder's threads decide how long the frames are.
        cut -= kind == "mpegts" and cut % 188 == 0
        with pytest.raises(BadInput):
            PROCESS(data[:cut])


def test_a_transport_stream_that_ends_within_a_frame_is_bad_input(clip):
    # The noise of a frame fills many packets of 188 bytes, so most cuts between packets are within
    # a frame.
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(25)]
    data = clip(frames, "mpegts", "h264", rate=25, width=96, height=64)
    refused = 0
    for packets in range(100, 130):
        try:
            PROCESS(data[: 188 * packets])
        except BadInput:
            refused += 1
    assert refused > 20


def test_a_live_recording_in_matroska_ends_with_a_whole_block(clip):
    data = clip(12, "matroska", "mpeg4")
    at = data.index(b"\x18\x53\x80\x67") + 4
    live = data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :]  # a segment of unknown length
    assert PROCESS(live).length == 33
    with pytest.raises(BadInput, match="truncated"):
        PROCESS(live[: len(live) // 2])


def test_an_mp4_with_its_index_first_shows_that_it_is_truncated(clip):
    data = clip(12)
    at = data.index(b"moov") - 4
    index = data[at : at + int.from_bytes(data[at : at + 4], "big")]
    head = data[: data.index(b"mdat") - 4]
    fast = head + index + data[len(head) : at]
    with pytest.raises(BadInput, match="truncated"):
        PROCESS(fast[: len(fast) - 100])


def test_wrong_extensions_do_not_matter(tmp_path, clip):
    file = tmp_path / "a.wav"
    file.write_bytes(clip(6))
    assert PROCESS(file).length == 33


def turned(data, a, b, c, d):
    """An MP4 with another matrix in its track header (ISO 14496-12 section 8.3.2)."""
    at = data.index(b"tkhd") + 4 + 40  # the fields of version 0 before the matrix take 40 bytes
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return data[:at] + matrix + data[at + 36 :]


@pytest.mark.parametrize(
    "matrix",
    [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)]
    + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)],
)
def test_a_clip_is_shown_as_its_container_turns_it(clip, matrix):
    # Brightness 80 + 60 x' + 30 y' of the four quarters; (x', y') = (ax + cy, bx + dy) is where the
    # quarter (x, y) is shown.
    a, b, c, d = matrix
    quarter, frame = (-1, 1), np.zeros((64, 64, 3), np.uint8)
    for y in quarter:
        for x in quarter:
            rows, columns = (slice(32 * (v > 0), 32 + 32 * (v > 0)) for v in (y, x))
            frame[rows, columns] = 110 + 60 * (a * x + c * y) + 30 * (b * x + d * y)
    data = turned(clip([frame] * 4, width=64, height=64), *matrix)
    shown = (PROCESS(data).data.mean((0, 1)) + 1) * 127.5
    found = [[float(shown[8 + 16 * (y > 0), 8 + 16 * (x > 0)]) for x in quarter] for y in quarter]
    np.testing.assert_allclose(found, [[20, 140], [80, 200]], atol=5)


def test_a_clip_that_is_turned_by_another_angle_is_bad_input(clip):
    data = turned(clip(4), 1, 1, -1, 1)
    with pytest.raises(BadInput, match="not by 90°"):
        PROCESS(data)


@pytest.mark.parametrize("kind", ["mp4", "matroska", "mov"])
def test_frames_of_a_variable_rate_count_as_long_as_they_are_shown(kind):
    # One dark frame for 3 s, then light ones at 25 frames a second for 1 s: six even times of the
    # 4 s are 1/3, 1, 5/3, 7/3, 3 and 11/3 s.
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for time in (0, *range(75, 100)):
            pixels = np.full((32, 48, 3), 200 if time else 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    stream = VideoStream(size=32, tubelet=(3, 8, 8), frames_per_second=3, max_seconds=4)
    found = greys(VideoProcessor(stream)(file.getvalue()))
    np.testing.assert_allclose(found, [20, 20, 20, 20, 200, 200], atol=8)


def test_delays_of_a_gif_count(picture):
    grey = [Image.new("L", (40, 40), value) for value in (0, 200)]
    data = picture(grey[0], "GIF", save_all=True, append_images=grey[1:], duration=[3000, 600])
    np.testing.assert_allclose(greys(PROCESS(data)), [0, 0, 0, 0, 0, 200], atol=8)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(CODECS), st.data())
def test_a_damaged_clip_decodes_or_is_bad_input(clip, made, codec, data):
    kind, coder, pixels = codec
    whole = bytearray(made.setdefault(kind, clip(4, kind, coder, pixels=pixels)))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadInput):
        assert PROCESS(bytes(whole)).data.isfinite().all()


@pytest.fixture(scope="module")
def made():
    return {}
