"""The logs, their truncation by a resumed run, and the output with and without a terminal."""

import io
import json
import re

import pytest
from rich.console import Console

from skillweave.analysis.experts import Use
from skillweave.batch import SkippedSample
from skillweave.training import progress as display_module
from skillweave.training.checkpoint import TrainingState
from skillweave.training.progress import ProgressDisplay
from skillweave.training.run_logger import RunLogger, truncate


def screen(**settings):
    settings = {"width": 200, **settings}
    return Console(file=io.StringIO(), **settings)


def make_logger(folder, console=None, state=None, step=0, steps=10, quiet=False):
    display = ProgressDisplay(steps, step, quiet=quiet, console=console or screen())
    return RunLogger(folder, display, 4, TrainingState(step, validated=step, logger=state or {}))


def read(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_truncate_keeps_lines_up_to_the_step_and_drops_a_torn_one(tmp_path):
    file = tmp_path / "metrics.jsonl"
    lines = [
        '{"step": 1, "kind": "train", "x": "é\u2028"}',
        '{"step": 3, "kind": "train"}',
        '{"step": 2, "kind": "validation"}',
        '{"step": 2, "kind": "train"}',
        '{"step": 1',
    ]
    file.write_text("\n".join(lines), "utf-8")
    with pytest.warns(UserWarning, match="1 of 5 lines are damaged"):
        assert len(truncate(file, step=2, validated=0)) == 2
    assert file.read_text("utf-8") == f"{lines[0]}\n{lines[3]}\n"
    assert truncate(tmp_path / "skipped.jsonl", 5, 5) == []


def test_each_sample_is_listed_once_even_after_resuming(tmp_path):
    skip, later = (
        SkippedSample("image", "a.png", "0 bytes"),
        SkippedSample("image", "b.png", "0 bytes"),
    )
    with make_logger(tmp_path) as first:
        first.log_skipped(1, [skip, skip])
        first.log_skipped(2, [skip])
        first.log_skipped(3, [later])
    console = screen()
    with make_logger(tmp_path, console, step=2) as second:
        second.log_skipped(3, [skip, later])
        second.print_skipped()
    assert [(line["step"], line["key"]) for line in read(tmp_path / "skipped.jsonl")] == [
        (1, "a.png"),
        (3, "b.png"),
    ]
    assert (
        "samples skipped: 2" in console.file.getvalue()
        and "2 × 0 bytes (image)" in console.file.getvalue()
    )


def test_windows_and_running_losses_survive_an_interruption(tmp_path):
    def steps(logger, numbers):
        for step in numbers:
            logger.log_step(step, {"ab"[step % 2]: 1.0 / step}, 4, 0.1, last=step == 10)

    def losses(folder):
        return [
            (line["step"], line["task"], line["loss"]) for line in read(folder / "metrics.jsonl")
        ]

    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    with make_logger(tmp_path / "whole") as logger:
        steps(logger, range(1, 11))
    with make_logger(tmp_path / "cut") as logger:
        steps(logger, range(1, 7))
        state = json.loads(json.dumps(logger.state))
        steps(logger, range(7, 9))  # lost in the crash
    with make_logger(tmp_path / "cut", state=state, step=6) as resumed:
        steps(resumed, range(7, 11))
        assert (
            resumed.running == pytest.approx(logger.running, rel=1)
            and resumed.seconds >= state["seconds"]
        )
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert losses(tmp_path / "whole")[0] == (4, "b", pytest.approx((1 + 1 / 3) / 2))


def test_drift_is_measured_from_the_validation_before_even_after_resuming(tmp_path):
    def uses(share):
        return [
            Use("encoder", 3, "qkv", "task", "a", "text", {"0": share, "1": round(1 - share, 6)})
        ]

    with make_logger(tmp_path) as logger:
        logger.log_experts(2, uses(0.9))
        logger.log_experts(4, uses(0.6))
        logger.log_experts(6, uses(0.1))  # lost in the crash
    with make_logger(tmp_path, step=4) as resumed:
        resumed.log_experts(6, uses(0.5))
    found = read(tmp_path / "metrics.jsonl")
    keys = ("step", "kind", "part", "layer", "site")
    assert [tuple(line[key] for key in keys) for line in found] == [
        (step, "experts", "encoder", 3, "qkv") for step in (2, 4, 6)
    ]
    assert [line["drift"] for line in found] == [
        {},
        {"a": pytest.approx(0.3)},
        {"a": pytest.approx(0.1)},
    ]
    assert found[1]["utilisation"] == {"0": 0.6, "1": 0.4}


def test_numbers_that_json_cannot_name_are_null(tmp_path):
    with make_logger(tmp_path) as logger:
        logger.log_validation(
            1, {"a": {"loss": float("nan"), "cer": float("inf")}}, float("nan"), False
        )
    (line,) = read(tmp_path / "metrics.jsonl")
    assert line["loss"] is None and line["metric"] == {"cer": None}


def test_other_processes_write_nothing(tmp_path):
    with make_logger(None, quiet=True) as logger:
        logger.log_skipped(1, [SkippedSample("a", "k", "r")])
        logger.log_step(1, {"a": 1.0}, 4, 0.1, last=True)
    assert not list(tmp_path.iterdir())


def test_plain_lines_come_now_and_then_not_with_every_step(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(display_module.time, "perf_counter", lambda: now[0])
    console = screen()
    shown = ProgressDisplay(1000, console=console)
    for step in range(1, 1001):
        now[0] += 0.125
        shown.update(step, "text", {"text": 1.0}, 50.0, 0.25)
    found = re.findall(r"step (\d+)/1000", console.file.getvalue())
    assert found == ["1", "241", "481", "721", "961", "1000"]
    assert "50 samples/s · waiting 25%" in console.file.getvalue()


def test_quiet_prints_warnings_alone(tmp_path):
    console = screen()
    with make_logger(tmp_path, console, quiet=True) as logger:
        logger.log_step(1, {"a": 1.0}, 4, 0.1, last=True)
        logger.log_validation(1, {"a": {"loss": 1.0}}, 1.0, True)
        assert console.file.getvalue() == ""
        logger.log_nonfinite(2, "a", float("nan"), 1.0, ["k1", "k2"])
    assert "task a, samples k1, k2" in console.file.getvalue()


def test_a_terminal_gets_a_bar_with_losses_below(tmp_path):
    console = screen(force_terminal=True)
    with ProgressDisplay(10, console=console) as shown:
        shown.update(3, "text", {"text": 1.25, "image": 2.5}, 50.0, 0.25)
    assert (
        "3/10" in console.file.getvalue() and "image 2.500 · text 1.250" in console.file.getvalue()
    )


def test_brackets_in_names_are_no_markup():
    console = screen()
    ProgressDisplay(1, console=console).note("took [bold]x[/] of [/nothing]")
    assert console.file.getvalue() == "took [bold]x[/] of [/nothing]\n"


def test_lines_say_how_much_time_is_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(display_module.time, "perf_counter", lambda: now[0])
    console = screen()
    shown = ProgressDisplay(110, done=10, console=console)
    for step, seconds in ((20, 410), (60, 2050), (109, 4059)):  # 41 seconds a step
        now[0] = seconds
        shown.update(step, "text", {}, 50.0, 0.25)
    found = re.findall(r"· (\S+) left", console.file.getvalue())
    assert found == ["1:01:30", "0:34:10", "0:00:41"]


def test_skipped_samples_are_grouped_by_what_is_wrong(tmp_path):
    skips = [SkippedSample("image", str(i), f"no such file: /data/{i}.png") for i in range(5000)]
    skips += [SkippedSample("image", f"a{i}", f"{i} bytes exceed max_bytes 9") for i in range(3)]
    skips += [SkippedSample("text", chr(97 + i), f"reason {chr(97 + i)} alone") for i in range(20)]
    console = screen()
    with make_logger(tmp_path, console) as logger:
        logger.log_skipped(1, skips)
        logger.print_skipped()
    told = console.file.getvalue()
    assert "samples skipped: 5023" in told and len(told) < 1000
    assert "5000 × no such file: … (image)" in told and "3 × … bytes exceed" in told
    assert "1 × reason a alone (text)" in told and "and 14 other reasons" in told
