"""The simple baselines of tasks, on samples whose answer is plain."""

import io
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from PIL import Image

from skillweave.config import ConfigError
from skillweave.config.data import LimitsConfig
from skillweave.data.values import first_text
from skillweave.tasks import TASKS
from skillweave.tasks.classification import ClassPredictions
from skillweave.tasks.multi_label import MultiLabelPredictions
from skillweave.tasks.regression import NumberPredictions
from skillweave.tasks.retrieval import RetrievalPredictions
from skillweave.tasks.task import caption_hash
from skillweave.tasks.token_labels import TokenLabelPredictions
from skillweave.tasks.transcription import Transcripts


@dataclass
class Samples:
    """Training and measured rows, as a task's dataset gives them."""

    training: list[dict]
    measured: list[dict]
    classes: list[str] = field(default_factory=list)

    @property
    def task(self):
        model = SimpleNamespace(limits=LimitsConfig())
        return SimpleNamespace(model=model, classes=self.classes)

    @property
    def keys(self):
        return [str(i) for i in range(len(self.measured))]

    def row(self, key):
        return self.measured[int(key)]

    def values(self, name, keys):
        return [first_text(self.measured[int(key)][name]) for key in keys]

    def training_values(self, name):
        return [first_text(row[name]) for row in self.training]

    def training_rows(self, count):
        return iter(self.training[:count])


def baseline(task, kind, samples, **predictions):
    return TASKS[task].baseline(kind(keys=samples.keys, **predictions), samples)


def class_predictions(samples):
    ones = np.ones((len(samples.measured), 2), np.float32)
    return {"labels": np.zeros(len(ones), np.int64), "probabilities": ones, "choices": ones[:, 0]}


def picture(colour):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "picture.png"}


def recording(*frequencies):
    parts = [np.sin(2 * np.pi * f * np.arange(3200) / 16000) for f in frequencies]
    noise = np.random.default_rng(0).normal(0, 0.01, 3200 * len(parts))
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.concatenate(parts) + noise, 16000, format="WAV")
    return {"bytes": file.getvalue(), "path": "word.wav"}


BROKEN = {"bytes": b"no file", "path": "broken"}


def test_pictures_are_classified_by_their_colours_whatever_is_broken():
    reds, blues = ["red", (250, 5, 5), (230, 10, 0)], ["blue", (5, 5, 250), (0, 10, 230)]
    training = [{"image": picture(c), "label": "red"} for c in reds]
    training += [{"image": picture(c), "label": "blue"} for c in blues]
    training += [{"image": BROKEN, "label": "red"}, {"image": picture("red"), "label": None}]
    samples = Samples(training, [{"image": picture((240, 0, 0)), "label": "red"}] * 2)
    samples.measured.append({"image": picture((0, 0, 240)), "label": "red"})  # wrong on purpose
    found = baseline(
        "image_classification", ClassPredictions, samples, **class_predictions(samples)
    )
    assert found.figures["accuracy"] == pytest.approx(2 / 3)


def test_recordings_have_the_class_and_the_transcript_of_the_nearest_one():
    words = {"up": (300, 2000), "down": (2000, 300)}
    training = [
        {"sound": recording(*tones), "label": word, "transcript": word}
        for word, tones in words.items()
    ]
    measured = [{"sound": recording(310, 1950), "label": "up", "transcript": "up"}]
    samples = Samples(training, measured)
    found = baseline(
        "sound_classification", ClassPredictions, samples, **class_predictions(samples)
    )
    assert found.figures == {"accuracy": 1.0}
    texts = {"references": ["up"], "hypotheses": [""]}
    assert baseline("speech_recognition", Transcripts, samples, **texts).figures == {"cer": 0.0}


def test_pictures_are_found_by_the_colours_that_words_stand_for():
    colours = ["red", "blue", "lime", "yellow"]
    training = [{"text": f"a {c} field", "image": picture(c)} for c in colours * 3]
    measured = [{"text": f"{c} cloth", "image": picture(c)} for c in colours]
    samples = Samples(training, measured)
    unit = np.eye(4, dtype=np.float32)
    captions = np.array([caption_hash(row["text"]) for row in measured])
    sides = {"queries": unit, "items": unit, "captions": captions}
    found = baseline("text_to_image", RetrievalPredictions, samples, **sides)
    assert found.figures["recall_at_1"] == 1


def test_two_texts_are_read_as_one():
    training = [
        {"text": "it rains", "second": second, "label": label}
        for second, label in [("it is wet", "yes"), ("it is dry", "no")] * 4
    ]
    samples = Samples(training, [{"text": "it rains", "second": "wet wet", "label": "yes"}])
    name, kind = "text_pair_classification", ClassPredictions
    found = baseline(name, kind, samples, **class_predictions(samples))
    assert found.figures == {"accuracy": 1.0}


def test_each_class_of_several_is_found_by_itself():
    training = [
        {"text": text, "labels": labels}
        for text, labels in [("red", ["r"]), ("blue", ["b"]), ("red blue", ["r", "b"])] * 5
    ]
    measured = [{"text": "blue red", "labels": ["r", "b"]}, {"text": "red", "labels": ["r"]}]
    samples = Samples(training, measured, classes=["r", "b"])
    labels = np.array([[1, 1], [1, 0]], bool)
    predictions = {"labels": labels, "probabilities": np.zeros((2, 2), np.float32)}
    found = baseline("text_multi_label", MultiLabelPredictions, samples, **predictions)
    assert found.figures == {"micro_f1": 1.0}


def test_words_have_their_commonest_label_whatever_is_broken():
    training = [{"text": "Ann sees Bob", "tags": "B-PER O B-PER"}, {"text": "a b", "tags": "O"}]
    samples = Samples(training, [{"text": "Bob sees Eve", "tags": "B-PER O B-PER"}])
    tags = ["B-PER", "O", "B-PER"]
    predictions = {"references": [tags], "hypotheses": [[None] * 3]}
    found = baseline("sequence_labelling", TokenLabelPredictions, samples, **predictions)
    # Eve is unknown, and the commonest label is B-PER
    assert found.figures == {"entity_f1": 1.0, "tag_accuracy": 1.0}


def test_numbers_of_one_text_and_of_two():
    numbers = {"references": np.array([1.0, 0.0], np.float32), "values": np.zeros(2, np.float32)}
    one = [{"text": t, "score": s} for t, s in [("good", 1), ("bad", 0), ("odd", "?")] * 4]
    samples = Samples(one, [{"text": "good good"}, {"text": "bad bad"}])
    found = baseline("text_regression", NumberPredictions, samples, **numbers)
    assert found.figures["pearson"] == pytest.approx(1)
    two = [
        {"text": "abab", "second": second, "score": score}
        for second, score in [("abab", 1), ("cdcd", 0)] * 4
    ]
    measured = [{"text": "cdcd", "second": "cdcd"}, {"text": "cdcd", "second": "abab"}]
    found = baseline("text_similarity", NumberPredictions, Samples(two, measured), **numbers)
    assert found.figures["squared_error"] == pytest.approx(0, abs=1e-9)


def test_the_choice_that_is_right_most_often():
    training = [
        {"text": "t", "choices": ["yes", "no"], "label": label}
        for label in ["no", "no", "yes", 1, "maybe"]  # a text, a number, none of the choices
    ]
    measured = [
        {"text": "t", "choices": ["no", "yes"], "label": "no"},
        {"text": "t", "choices": ["yes", "no"], "label": "yes"},
    ]
    samples = Samples(training, measured)
    found = baseline("multiple_choice", ClassPredictions, samples, **class_predictions(samples))
    assert found.figures == {"accuracy": 0.5}


def test_a_task_without_training_data_says_so():
    class Alone(Samples):
        def training_rows(self, count):
            raise ConfigError("none")

    samples = Alone([], [{"sound": recording(300), "transcript": "a"}])
    with pytest.raises(ConfigError):
        baseline("speech_recognition", Transcripts, samples, references=["a"], hypotheses=["a"])
    samples = Samples([], samples.measured)
    texts = {"references": ["a"], "hypotheses": ["a"]}
    assert baseline("speech_recognition", Transcripts, samples, **texts) is None
