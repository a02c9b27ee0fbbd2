"""More tokens for a trained model."""

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
    """A model whose tokenizer has a token for each of `words`.

    The embedding of a new token begins as the mean of the tokens that the word was split into, and
    so do the biases of targets that predict tokens. Raises ConfigError where there is nothing to
    add, or no such tokenizer.
    """
    name = tokenizer_asset(modality)
    if name not in model.assets:
        raise ConfigError(
            f"the model has no tokenizer of {modality.value}"
            f" ({', '.join(model.assets) or 'no assets'})"
        )
    tokenizer = read_tokenizer(model.assets[name])
    known = tokenizer.get_vocab()
    fresh = dict.fromkeys(word for word in map(str.strip, words) if word and word not in known)
    tokens = {word: tokenizer.encode(word, add_special_tokens=False).ids for word in fresh}
    fresh = [word for word in fresh if tokens[word]]
    if not fresh:
        raise ConfigError("no word to add: all are known, or there are none")
    # Chinese text has no spaces between words; in other text `cat` must not match in `category`.
    tokenizer.add_tokens(
        [AddedToken(word, single_word=word.isascii(), normalized=True) for word in fresh]
    )
    data, size = model.config.model_dump(mode="json"), tokenizer.get_vocab_size()
    for sharer in model.config.sharers(modality):
        if sharer.value in data["streams"]:
            data["streams"][sharer.value]["vocabulary"] = size
    assets = {**model.assets, name: tokenizer.to_str().encode()}
    result = Model(ModelConfig.parse(data, "extended model"), assets)
    old, new = model.state_dict(), result.state_dict()
    with torch.no_grad():
        for key, x in new.items():
            # tables with a row, and biases with an entry, for each token
            if x.shape != old[key].shape:
                rows = [old[key][tokens[word]].mean(0, keepdim=True) for word in fresh]
                old[key] = torch.cat([old[key], *rows])
    result.load_state_dict(old)
    return result.train(model.training)
