"""The report page: self-contained, complete, and safe with hostile names."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
import soundfile
from PIL import Image
from tiny_run import add_journal, make_run, save_run

from skillweave.data import previews
from skillweave.evaluation.evaluator import measure
from skillweave.inference import open_run
from skillweave.reporting.cases import build_cases
from skillweave.reporting.report import _activated, write_report

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


DAMAGED = {
    "environment.json": ["", "[1]", '{"packages": 3}', '{"started": 5}', "\x00"],
    "interference.json": ["{", '{"tasks": ["a"]}', '{"tasks": 1, "blocks": [{}]}'],
    "metrics.jsonl": [
        '{"step": 1, "ki',
        '{"step": "x", "kind": "validation"}',
        '{"step": 1, "kind": "validation", "task": [1], "metric": {"accuracy": "high"}}',
        '{"step": 1e400, "kind": "experts"}',
        f'{{"step": 1{"0" * 400}, "kind": "validation", "task": "a", "loss": 1}}',
    ],
    "skipped.jsonl": ["null", '{"task": "a"}', '{"step": 1, "task": 2, "key": 3, "reason": 4}'],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_of_a_run_do_not_prevent_its_report(tmp_path_factory, name):
    run = make_run(tmp_path_factory.mktemp("damaged"))
    model, recipe = open_run(run)
    measured = measure(model, recipe, tasks=["text_classification"], bootstrap=0)
    for content in DAMAGED[name]:
        add_journal(run)
        (run / name).write_text(content, "utf-8")
        page = write_report(run, model, recipe.recipe, measured).read_text("utf-8")
        Balance().feed(page)
        assert "accuracy" in page


def test_samples_that_cannot_be_shown_do_not_prevent_the_report(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("gone"))
    model, recipe = open_run(run)
    measured = measure(model, recipe, tasks=["text_to_image"], bootstrap=0)
    for file in (run.parent / "data").glob("test-*.png"):
        file.unlink()
    with pytest.warns(
        UserWarning, match="samples of text_to_image: damaged: BadInput: no such file"
    ):
        page = write_report(run, model, recipe.recipe, measured)
    assert "recall@10" in page.read_text("utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("report"))
    add_journal(run)
    (run / "interference.json").write_text(json.dumps(INTERFERENCE))
    model, recipe = open_run(run)
    measured = measure(model, recipe, bootstrap=20)
    return write_report(run, model, recipe.recipe, measured, [run]).read_text("utf-8")


def test_the_page_is_whole_and_needs_no_network(page):
    checked = Balance()
    checked.feed(page)
    assert not checked.open
    sources = [
        attrs[name] for _, attrs in checked.tags for name in ("src", "href") if name in attrs
    ]
    assert sources and all(source.startswith("data:") for source in sources)
    # what SVG refers to stands in the page itself
    assert not re.search(r"@import|url\((?!#)|xlink:href=\"(?!#)", page)
    assert not re.sub(r'"http://www.w3.org/(2000/svg|1999/xlink)"', "", page).count("http")


def test_every_plot_and_gauge_is_described(page):
    checked = Balance()
    checked.feed(page)
    drawn = [attrs for tag, attrs in checked.tags if tag == "svg" or attrs.get("class") == "scale"]
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawn)
    described = [attrs["aria-label"] for attrs in drawn]
    assert sum(label.endswith(" % of the parameters") for label in described) == 5
    assert "text_to_image · recall@10 over steps" in described
    assert "Interference of task j on task i" in described
    assert any(label.startswith("recall@10 ") for label in described)


def test_a_page_has_colours_for_dark_mode(page):
    assert page.count("prefers-color-scheme: dark") >= 2  # of the page and of its plots


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


def test_losses_confusions_and_what_was_trained_are_shown(page):
    assert "20 steps in 0:01:05 h" in page and "1,234 training samples" in page
    assert 'aria-label="text_to_image · loss over steps"' in page
    assert "negative taken for positive" in page


def test_legends_name_what_is_drawn_alone(tmp_path):
    run = make_run(tmp_path)
    model, recipe = open_run(run)
    measured = measure(model, recipe, tasks=["text_to_image"], bootstrap=20)
    table = measured["text_to_image"].table
    table["baseline"] = {}
    page = write_report(run, model, recipe.recipe, measured).read_text("utf-8")
    assert "</i>chance</span>" in page and "simple baseline" not in page
    table["chance"] = {}
    page = write_report(run, model, recipe.recipe, measured).read_text("utf-8")
    assert "</i>chance</span>" not in page


def test_skills_stand_where_a_task_activates_them(tmp_path):
    model = open_run(make_run(tmp_path))[0]
    found = {one.task: one for one in _activated(model)}
    active = {task: {s for s, _, on in one.skills if on} for task, one in found.items()}
    assert active == {
        "text_classification": {"text"},
        "speech_recognition": {"sound"},
        "text_to_image": {"text", "image"},
        "text_to_video": {"text", "video"},
        "text_to_code": {"text", "code"},
    }
    assert all(len(one.skills) == 5 for one in found.values())
    total = sum(x.numel() for x in model.parameters())
    for task, one in found.items():
        count = sum(model.get_parameter(name).numel() for name in model.active_parameters(task))
        assert (one.parameters, one.share) == (count, count / total)


def test_pictures_survive_inlining():
    out = io.BytesIO()
    Image.new("RGBA", (400, 100), (255, 0, 0, 128)).save(out, "PNG")
    kind, _, content = previews.image_uri({"bytes": out.getvalue(), "path": None}).partition(
        ";base64,"
    )
    assert kind == "data:image/webp" and Image.open(io.BytesIO(base64.b64decode(content))).size == (
        192,
        48,
    )


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(";base64,")[2]))).convert("RGB")


def test_pictures_and_frames_are_shown_upright_and_small():
    wide = Image.new("RGB", (600, 200), (255, 0, 0))
    wide.paste((0, 0, 255), (300, 0, 600, 200))
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # to be turned clockwise
    wide.save(out, "JPEG", exif=exif)
    shown = opened(previews.image_uri(out.getvalue()))
    assert shown.size == (64, 192)
    assert shown.getpixel((32, 20))[0] > 200 and shown.getpixel((32, 170))[2] > 200
    frames = io.BytesIO()
    greys = [Image.new("L", (600, 300), 20 * i) for i in range(11)]
    greys[0].save(frames, "GIF", save_all=True, append_images=greys[1:], duration=200)
    first, middle, last = map(opened, previews.frame_uris(frames.getvalue()))
    assert first.size == (96, 48)
    values = [image.getpixel((48, 24))[0] for image in (first, middle, last)]
    assert abs(values[0]) < 8 and abs(values[1] - 100) < 12 and abs(values[2] - 200) < 8


def test_sounds_become_wav(tmp_path):
    soundfile.write(tmp_path / "a.flac", [0.0, 0.5, -0.5] * 100, 8000)
    content = previews.sound_uri(str(tmp_path / "a.flac")).partition(";base64,")[2]
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


HOSTILE = """<img src=x onerror="alert(1)'">"""


def test_names_and_captions_are_text_whatever_they_contain(tmp_path):
    rows = [
        {"text": f"{HOSTILE} {t}", "label": f"{HOSTILE}{t}", "split": s, "key": f"{HOSTILE}{i}"}
        for s in ("train", "test")
        for i, t in enumerate("aab")
    ]
    data = tmp_path / f"{HOSTILE}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"kind": "text_classification", "data": {"path": str(data)}}
    skills = {"route": "skill", "skills": {"text": HOSTILE}}
    text = {"vocabulary": 80, "max_length": 16, "tokenizer": {"min_frequency": 1}}
    described = {
        "name": HOSTILE,
        "output": str(tmp_path / "run"),
        "model": {
            "width": 16,
            "streams": {"text": text},
            "encoder": {"layers": 1, "heads": 2, "sparse": {"qkv": skills}},
        },
        "tasks": {HOSTILE: task},
        "training": {"steps": 1},
    }
    run, other = save_run(described), tmp_path / f"other {HOSTILE}"
    hostile = json.dumps(HOSTILE)[1:-1]
    found = json.dumps(INTERFERENCE).replace("text_to_image", hostile)
    (run / "interference.json").write_text(found.replace("encoder.blocks", hostile))
    lines = [{"step": s, "kind": "validation", "task": HOSTILE, "loss": 1.0} for s in (1, 2)]
    lines += [
        {"step": s, "kind": "experts", "part": HOSTILE, "site": HOSTILE, "layer": 0, "entropy": 0.5}
        | {"drift": {HOSTILE: 0.5}, "utilisation": {HOSTILE: 1.0}}
        for s in (1, 2)
    ]
    other.mkdir()
    for folder in (run, other):
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    skip = {"step": 3, "task": HOSTILE, "key": HOSTILE, "reason": HOSTILE}
    (run / "skipped.jsonl").write_text(json.dumps(skip) + "\n")
    (run / "environment.json").write_text(json.dumps({"processor": HOSTILE, "system": HOSTILE}))
    model, recipe = open_run(run)
    measured = measure(model, recipe, bootstrap=20)
    page = write_report(run, model, recipe.recipe, measured, [other]).read_text("utf-8")
    checked = Balance()
    checked.feed(page)
    assert not checked.open
    assert not any(name.startswith("on") for _, attrs in checked.tags for name in attrs)
    assert sum(tag == "script" for tag, _ in checked.tags) == 1
    assert page.count("&lt;img src=x onerror=") >= 20
