"""The report page: self-contained, complete, and safe with hostile names."""

import base64
import io
import itertools
import json
import re
from html.parser import HTMLParser

import pytest
import soundfile
from PIL import Image
from tiny_run import add_journal, make_run

from skillweave.config.encoder import SparseConfig
from skillweave.evaluation.evaluator import measure
from skillweave.inference.api import open_run
from skillweave.model.config import ModelConfig
from skillweave.reporting import media, pictures, svg
from skillweave.reporting.cases import build_cases
from skillweave.reporting.report import write_report

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Balance(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


INTERFERENCE = {
    "tasks": ["text_to_image", "<b>"],
    "blocks": [
        {
            "block": "encoder.blocks.0.feed_forward",
            **{name: [[1.0, -0.5], [None, 1.0]] for name in ("values", "pooled")},
            **{
                name: [[[1.0, 1.0], [-0.7, -0.3]], [[None, None], [1.0, 1.0]]]
                for name in ("intervals", "pooled_intervals")
            },
            "shared": [[9, 9], [0, 9]],
        }
    ],
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("report"))
    add_journal(run)
    (run / "interference.json").write_text(json.dumps(INTERFERENCE))
    model, recipe = open_run(run)
    measured = measure(model, recipe, bootstrap=20)
    return write_report(run, model, recipe, measured, [run]).read_text("utf-8")


def test_the_page_is_whole_and_needs_no_network(page):
    checked = Balance()
    checked.feed(page)
    assert not checked.open
    sources = [
        attrs[name] for _, attrs in checked.tags for name in ("src", "href") if name in attrs
    ]
    assert sources and all(source.startswith("data:") for source in sources)
    assert not re.search(r"@import|url\(", page)
    assert not re.sub(r'"http://www.w3.org/2000/svg"', "", page).count("http")


def test_interference_is_drawn_where_it_was_measured(page):
    assert (
        "What tasks do to each other" in page
        and "-0.70 … -0.30" in page
        and "no shared parameter" in page
    )


def test_every_task_modality_and_skip_is_shown(page):
    for task in (
        "text_classification",
        "speech_recognition",
        "text_to_image",
        "text_to_video",
        "text_to_code",
    ):
        assert page.count(task) >= 3  # results, pillars, case studies
    assert "data:image/webp" in page and "data:video/mp4" in page and "data:audio/wav" in page
    assert "def make_" in page and "red square" in page
    assert "&lt;b&gt;" in page and "0 bytes" in page and '<td class="wrap"><b>' not in page
    assert "2026-01-02 03:04:05" in page


def test_pictures_survive_inlining():
    out = io.BytesIO()
    Image.new("RGBA", (400, 100), (255, 0, 0, 128)).save(out, "PNG")
    kind, _, content = media.image_uri({"bytes": out.getvalue(), "path": None}).partition(
        ";base64,"
    )
    assert kind == "data:image/webp" and Image.open(io.BytesIO(base64.b64decode(content))).size == (
        192,
        48,
    )


def test_sounds_become_wav(tmp_path):
    soundfile.write(tmp_path / "a.flac", [0.0, 0.5, -0.5] * 100, 8000)
    content = media.sound_uri(str(tmp_path / "a.flac")).partition(";base64,")[2]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert (len(samples), rate) == (300, 8000)


def test_cases_mark_what_is_right(tmp_path):
    model, recipe = open_run(make_run(tmp_path))
    measured = measure(model, recipe, tasks=["text_to_image"], bootstrap=0)["text_to_image"]
    captions = dict(zip(measured.predictions.keys, measured.predictions.captions, strict=True))
    assert len(set(captions.values())) == 5
    for case in build_cases(measured):
        assert [a.score for a in case.answers] == sorted(
            (a.score for a in case.answers), reverse=True
        )
        assert all(answer.right == (answer.caption == case.query.text) for answer in case.answers)
        assert any(answer.right for answer in case.answers)
        assert case.rank == min(answer.rank for answer in case.answers if answer.right)


def test_learning_curves_overlay_runs():
    line = {"kind": "validation", "task": "t", "loss": 2.0}
    runs = {
        "with": [
            {**line, "step": 10, "metric": {"accuracy": 0.5}},
            {**line, "step": 20, "metric": {"accuracy": 0.8}},
        ],
        "without": [
            {**line, "step": 10, "metric": {"accuracy": 0.4}},
            {"kind": "train", "step": 1, "task": "t", "loss": 9},
        ],
    }
    (drawn,) = pictures.learning_curves(runs, {"t": {"chance": {"accuracy": 0.25}, "pool": None}})
    assert drawn.count("<polyline") == 2 and drawn.count("<circle") == 3
    assert "chance-line" in drawn and "without · step 10 · 0.4" in drawn


def test_a_curve_leaves_out_what_is_not_finite():
    line = {"kind": "validation", "task": "t", "step": 1, "loss": float("nan"), "metric": {}}
    assert pictures.learning_curves({"run": [line]}, {}) == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 600), (0.031, 0.038), (1, 1), (0, 200_000)])
def test_ticks_are_round_and_inside(low, high):
    ticks = svg.ticks(low, high)
    assert 1 <= len(ticks) <= 9
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    steps = {round(b - a, 9) for a, b in itertools.pairwise(ticks)}
    assert len(steps) <= 1
    assert all(float(f"{step:.1e}"[:3]) in (1, 2, 5) for step in steps)


def test_pillars_of_a_decoder_with_words_of_its_own():
    """Its words are no stream's."""
    config = ModelConfig.parse({"preset": "s2t-small"})
    assert pictures.pillars(config, {"lm": 1}, 2).count("shared: activated") == 1


def test_pillars_stand_where_a_task_activates_them(tmp_path):
    config = open_run(make_run(tmp_path))[0].config
    drawn = pictures.pillars(config, dict.fromkeys(config.tasks, 1), 2)
    # Five tasks, three of them with two skills, over five skills.
    assert drawn.count(": activated") == 8 and drawn.count("not activated") == 17
    dense = config.model_copy(
        update={"encoder": config.encoder.model_copy(update={"sparse": SparseConfig()})}
    )
    drawn = pictures.pillars(dense, dict.fromkeys(config.tasks, 1), 2)
    assert drawn.count("shared: activated") == 5 and "not activated" not in drawn


def test_svg_escapes():
    assert (
        svg.tag("a", stroke_width=1.50, class_='"<')
        == '<a stroke-width="1.5" class="&quot;&lt;"></a>'
    )
    assert "&lt;script&gt;" in svg.text("<script>", 0, 0)
