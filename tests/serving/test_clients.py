"""The endpoints, by the clients that exist for them; answers are those of the Python functions."""

import base64
from pathlib import Path

import cohere
import numpy as np
import openai
import pytest
from served import http

import skillweave as sw

TINY = "skillweave/tiny"


def data_uri(file: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def other(url: str) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="none", base_url=url)


def test_models_and_their_tasks_are_listed(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {TINY, f"{TINY}:text_to_code", "run", "run:text_classification", "writer"} <= {*names}
    assert client.models.retrieve(f"{TINY}:text_to_code").owned_by == "skillweave"
    with pytest.raises(openai.NotFoundError, match="unknown model 'gpt-9'"):
        client.embeddings.create(model="gpt-9", input="a")


def test_embeddings_are_those_of_encode(client: openai.OpenAI) -> None:
    texts = ["a dog", "狗", "rain falls on the roof of the house"]
    expected = sw.encode(TINY, "text_to_image", text=texts)
    found = client.embeddings.create(model=TINY, input=texts)  # the client asks for base64
    np.testing.assert_allclose([one.embedding for one in found.data], expected, atol=1e-5)
    floats = client.embeddings.create(model=TINY, input=texts, encoding_format="float")
    assert [one.index for one in floats.data] == [0, 1, 2]
    np.testing.assert_allclose([one.embedding for one in floats.data], expected, atol=1e-5)
    assert found.usage.prompt_tokens > len(texts)
    short = client.embeddings.create(model=TINY, input=texts, dimensions=16)
    cut = expected[:, :16] / np.linalg.norm(expected[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose([one.embedding for one in short.data], cut, atol=1e-5)
    code = client.embeddings.create(model=f"{TINY}:text_to_code", input="def f(): pass")
    own = sw.encode(TINY, "text_to_code", text=["def f(): pass"])[0]
    np.testing.assert_allclose(code.data[0].embedding, own, atol=1e-5)


def test_bad_embedding_requests_are_told(client: openai.OpenAI) -> None:
    for given, told in [
        ({"input": [""]}, "input 0: text without tokens"),
        ({"input": "a", "dimensions": 193}, "dimensions: the vectors have 192, not 193"),
        ({"input": ["a"] * 51}, "51 inputs, at most 50 are taken"),
    ]:
        with pytest.raises(openai.BadRequestError, match=told):
            client.embeddings.create(model=TINY, **given)
    with pytest.raises(openai.NotFoundError, match="did you mean 'text_to_image'"):
        client.embeddings.create(model=f"{TINY}:text_to_imag", input="a")


def test_media_are_embedded_as_data_uris(other: cohere.ClientV2, run: Path) -> None:
    data = run.parent / "data"
    image, sound, video = (data / f"test-0.{kind}" for kind in ("png", "wav", "mp4"))
    uris = [data_uri(image, "image/png")]
    found = other.embed(model="run", input_type="image", images=uris, embedding_types=["float"])
    expected = sw.encode(run, "text_to_image", image=[image])
    np.testing.assert_allclose(found.embeddings.float_, expected, atol=1e-5)
    for kind, file, part, task in [
        ("sound", sound, ("audio_url", "audio/wav"), "speech_recognition"),
        ("video", video, ("video_url", "video/mp4"), "text_to_video"),
    ]:
        uri = data_uri(file, part[1])
        given = [{"content": [{"type": part[0], part[0]: {"url": uri}}]}]
        one = other.embed(model="run", input_type="image", inputs=given, embedding_types=["float"])
        same = other.embed(model="run", input_type="image", images=[uri], embedding_types=["float"])
        expected = sw.encode(run, task, **{kind: [file]})
        np.testing.assert_allclose(one.embeddings.float_, expected, atol=1e-5)
        np.testing.assert_allclose(same.embeddings.float_, expected, atol=1e-5)


def test_vectors_are_told_in_every_form(other: cohere.ClientV2) -> None:
    forms = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    texts = ["a cat", "猫"]
    found = other.embed(
        model=TINY, input_type="search_query", texts=texts, embedding_types=forms
    ).embeddings
    exact = np.array(found.float_)
    np.testing.assert_allclose(np.array(found.int8) / 127, exact, atol=0.51 / 127)
    np.testing.assert_allclose((np.array(found.uint8) - 128) / 127, exact, atol=0.51 / 127)
    bits = np.unpackbits(np.array(found.ubinary, np.uint8), axis=1)
    assert (bits == (exact > 0)).all()
    assert (np.array(found.binary) + 128 == found.ubinary).all()
    assert np.allclose(np.frombuffer(base64.b64decode(found.base64[0]), "<f4"), exact[0])


def test_documents_are_ordered_by_their_cosines(other: cohere.ClientV2) -> None:
    documents = ["汽车", "狗", "雨"]
    found = other.rerank(model=f"{TINY}:text_matching", query="dog", documents=documents, top_n=2)
    vectors = sw.encode(TINY, "text_matching", text=["dog", *documents])
    scores = vectors[1:] @ vectors[0]
    best = np.argsort(-scores)[:2]
    assert [one.index for one in found.results] == best.tolist() and best[0] == 1
    assert [one.relevance_score for one in found.results] == pytest.approx(scores[best], abs=1e-5)


def test_pairs_have_scores(url: str) -> None:
    pairs = {"text_1": ["dog", "car"], "text_2": ["狗", "雨"]}
    data = http.post(f"{url}/score", json={"model": f"{TINY}:text_matching", **pairs}).json()
    left, right = (sw.encode(TINY, "text_matching", text=side) for side in pairs.values())
    expected = (left * right).sum(1)
    assert [one["score"] for one in data["data"]] == pytest.approx(expected, abs=1e-5)
    uneven = http.post(f"{url}/score", json={"text_1": ["a", "b"], "text_2": ["c"]})
    assert uneven.status_code == 400


def test_classes_of_the_model_and_of_ones_own(url: str, run: Path) -> None:
    texts = ["so good", "very bad"]
    given = {"model": "run", "input": texts}
    found = http.post(f"{url}/classify", json=given).json()["data"]
    expected = sw.predict(run, "text_classification", texts)
    for one, answer in zip(found, expected, strict=True):
        assert one["label"] == answer["class"]
        shares = dict(zip(one["labels"], one["probs"], strict=True))
        assert shares == pytest.approx(answer["probabilities"], abs=1e-5)
    labels = ["red square", "blue square"]
    image = run.parent / "data" / "test-0.png"
    given = {"type": "image_url", "image_url": {"url": data_uri(image, "image/png")}}
    body = {"model": "run", "input": [given], "labels": labels}
    (own,) = http.post(f"{url}/classify", json=body).json()["data"]
    vector = sw.encode(run, "text_to_image", image=[image])[0]
    cosines = sw.encode(run, "text_to_image", text=labels) @ vector
    weights = np.exp(cosines / 0.07)  # the temperature of a model that was not trained
    assert own["probs"] == pytest.approx(weights / weights.sum(), abs=1e-4)


def test_recordings_are_transcribed(client: openai.OpenAI, run: Path) -> None:
    file = run.parent / "data" / "test-2.wav"
    (expected,) = sw.predict(run, "speech_recognition", [file])
    found = client.audio.transcriptions.create(model="run", file=file)
    assert found.text == expected["transcript"]
    whole = client.audio.transcriptions.create(
        model="run", file=file, response_format="verbose_json"
    )
    assert whole.duration == pytest.approx(0.5)
    text = client.audio.transcriptions.create(model="run", file=file, response_format="text")
    assert text == f"{expected['transcript']}\n"
    with pytest.raises(openai.BadRequestError, match="srt: task 'speech_recognition' hears no"):
        client.audio.transcriptions.create(model="run", file=file, response_format="srt")
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(model="run", file=("a.wav", b"RIFF nothing"))


def test_texts_go_on_as_generate_writes_them(client: openai.OpenAI, writer: Path) -> None:
    prompts = ["hello there", "so"]
    expected = sw.generate(writer, prompts, max_new_tokens=8)
    found = client.completions.create(model="writer", prompt=prompts, max_tokens=8)
    assert [one.text for one in found.choices] == expected
    assert {one.finish_reason for one in found.choices} <= {"length", "stop"}
    whole, *_ = sw.generate(writer, prompts[:1], max_new_tokens=8)
    stop = whole[3:5]
    cut = client.completions.create(model="writer", prompt=prompts[0], max_tokens=8, stop=stop)
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    with pytest.raises(openai.BadRequestError, match="shorten the input"):
        client.completions.create(model="writer", prompt="x" * 500)


@pytest.mark.parametrize("stop", [None, "stops"])
def test_a_stream_is_the_text_in_pieces(
    client: openai.OpenAI, writer: Path, stop: str | None
) -> None:
    (whole,) = sw.generate(writer, ["so"], max_new_tokens=12)
    ends = whole[4:7] if stop else None
    pieces = client.completions.create(
        model="writer", prompt="so", max_tokens=12, stop=ends, stream=True
    )
    told = [piece.choices[0] for piece in pieces]
    text = "".join(one.text for one in told)
    assert text == (whole[: whole.index(ends)] if ends else whole)
    assert told[-1].finish_reason == ("stop" if ends else "length") and len(told) > 2


def test_chats_are_written_and_streamed(client: openai.OpenAI, writer: Path) -> None:
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    prompt = "system: be kind\n\nuser: hi\n\nassistant:"
    (expected,) = sw.generate(writer, [prompt], max_new_tokens=6)
    found = client.chat.completions.create(model="writer", messages=messages, max_tokens=6)
    assert found.choices[0].message.content == expected
    pieces = client.chat.completions.create(
        model="writer",
        messages=messages,
        max_completion_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
    )
    *told, last = pieces
    assert "".join(one.choices[0].delta.content or "" for one in told) == expected
    assert last.usage is not None and last.usage.completion_tokens > 0
    with pytest.raises(openai.NotFoundError, match="can write"):
        client.chat.completions.create(model=TINY, messages=messages)


def test_own_endpoints_answer_rows(url: str, run: Path, writer: Path) -> None:
    tasks = http.get(f"{url}/tasks").json()["tasks"]
    told = {(one["model"], one["task"]): one for one in tasks}
    assert told["run", "text_classification"]["reads"] == ["text"]
    model = sw.load(run)
    expected = model.count_parameters("text_classification")
    assert told["run", "text_classification"]["activated_parameters"] == expected

    def ask(task: str, **body: object) -> list[dict]:
        return http.post(f"{url}/tasks/{task}", json=body).json()["answers"]

    good, bad = ask("text_classification", inputs=["so good", {"text": ""}])
    assert good["class"] == sw.predict(run, "text_classification", ["so good"])[0]["class"]
    assert bad == {"error": "no text"}
    row = {"text": "red", "image": data_uri(run.parent / "data" / "test-0.png", "image/png")}
    (both,) = ask("text_to_image", model="run", inputs=[row])
    assert both["vectors"].keys() == {"text", "image"}
    settings = {"max_new_tokens": 5}
    (name,) = (task for model_name, task in told if model_name == "writer")
    (text,) = ask(name, inputs=["hello"], settings=settings)
    assert text["text"] == sw.generate(writer, ["hello"], max_new_tokens=5)[0]
