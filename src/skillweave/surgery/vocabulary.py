"""More words for a trained model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import AddedToken

from skillweave.batch import Modality
from skillweave.config import ConfigError
from skillweave.data.processors import tokenizer_asset
from skillweave.data.processors.tokenizer import read_tokenizer
from skillweave.model.config import ModelConfig
from skillweave.model.model import Model


def extend(model: Model, words: Sequence[str], modality: Modality = Modality.TEXT) -> Model:
    """A model whose tokeniser knows `words` whole: each begins with the mean of what stood for its
    pieces before.

    So do the biases of targets that predict words. Raises ConfigError where there is nothing to
    add, or no such tokeniser.
    """
    name = tokenizer_asset(modality)
    if name not in model.assets:
        raise ConfigError(
            f"the model has no tokeniser of {modality.value}"
            f" ({', '.join(model.assets) or 'no assets'})"
        )
    tokenizer = read_tokenizer(model.assets[name])
    known = tokenizer.get_vocab()
    fresh = list(
        dict.fromkeys(word for word in map(str.strip, words) if word and word not in known)
    )
    pieces = {word: tokenizer.encode(word, add_special_tokens=False).ids for word in fresh}
    fresh = [word for word in fresh if pieces[word]]
    if not fresh:
        raise ConfigError("no word to add: all are known, or there are none")
    # In running Chinese nothing parts words; elsewhere `cat` is not to be found in `category`.
    tokenizer.add_tokens(
        [AddedToken(word, single_word=word.isascii(), normalized=True) for word in fresh]
    )
    data, size = model.config.model_dump(mode="json"), tokenizer.get_vocab_size()
    sharers = model.config.sharers(modality)
    for sharer in sharers:
        if sharer.value in data["streams"]:
            data["streams"][sharer.value]["vocabulary"] = size
    result = Model(
        ModelConfig.parse(data, "extended model"),
        {**model.assets, name: tokenizer.to_str().encode()},
    )
    old, new = model.state_dict(), result.state_dict()
    with torch.no_grad():
        for key, x in new.items():
            # tables with a row, and biases with an entry, for each piece
            if x.shape != old[key].shape:
                rows = [old[key][pieces[word]].mean(0, keepdim=True) for word in fresh]
                old[key] = torch.cat([old[key], *rows])
    result.load_state_dict(old)
    return result.train(model.training)
