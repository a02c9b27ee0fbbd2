"""Write the model that the pretraining of skillweave/tiny begins with: words that mean something.

Run `python packs/tiny/start.py --out DIR` after build.py. The word vectors are a ridge regression:
the mean of the vectors of a text's tokens is as near as can be to the teacher's vector of the text.
So the text side has a useful space from the first step, and pictures are drawn to it at once.
Layers begin with small outputs, which leaves these vectors as they are.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.linalg import cg
from tokenizers import Tokenizer

import skillweave as sw
from skillweave.model.model import Model
from skillweave.tasks.resolve import resolve

DATA = Path("~/.cache/skillweave/tiny").expanduser()
RECIPE = Path(__file__).parents[2] / "recipes/tiny/pretraining.yaml"
RIDGE = 0.02
WORD_SIZE = 0.3
"""Root mean square of a word's vector. Those of positions have 0.05."""
UNKNOWN_SIZE = 0.05
"""The same of a token that no text of the teacher has."""
LAYER_OUTPUT = 0.2
"""By how much the last matrices of attention and feed-forward are multiplied."""
MASKED_SCALE = 0.1
"""The norm before the scores of masked words: they are products with the word vectors, which large
gradients of a poor first guess would destroy."""
OUTPUTS = (".attention.output.weight", ".outer.weight")


def token_vectors(tokenizer: Tokenizer, texts: list[str], vectors: NDArray) -> NDArray[np.float32]:
    """[tokens, D]: E of min |A E - V|² + RIDGE |E|², where A takes the mean of a text's tokens; 0
    for tokens that no text has."""
    encoded = [one.ids for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
    rows = np.repeat(np.arange(len(texts)), [len(ids) for ids in encoded])
    weights = np.concatenate([np.full(len(ids), 1 / max(len(ids), 1)) for ids in encoded])
    shape = (len(texts), tokenizer.get_vocab_size())
    means = csr_array((weights, (rows, np.concatenate(encoded))), shape=shape)
    normal, right = means.T @ means, means.T @ vectors
    normal.setdiag(normal.diagonal() + RIDGE)
    return np.stack([cg(normal, column, rtol=1e-3)[0] for column in right.T], 1).astype(np.float32)


def start(out: Path, data: Path = DATA) -> None:
    """Write the model folder."""
    recipe = sw.read_recipe(RECIPE, ["start_from=null"])
    ready = resolve(recipe)
    torch.manual_seed(recipe.training.seed)
    model = Model(ready.model, ready.assets)
    table = pq.read_table(data / "vectors.parquet").to_pydict()
    tokenizer = Tokenizer.from_file(str(data / "tokenizer.json"))
    found = token_vectors(tokenizer, table["text"], np.array(table["vector"], np.float32))
    known = np.linalg.norm(found, axis=1) > 0
    found[known] *= WORD_SIZE / np.sqrt((found[known] ** 2).mean())
    state = model.state_dict()
    with torch.no_grad():
        word = state["shared.word.weight"]
        word.normal_(std=UNKNOWN_SIZE)
        word[: len(found)][torch.from_numpy(known)] = torch.from_numpy(found[known])
        for name, weight in state.items():
            if name.endswith(OUTPUTS):
                weight *= LAYER_OUTPUT
        state["targets.mlm.norm.weight"].fill_(MASKED_SCALE)
    model.save_pretrained(out)
    print(f"{out}: {known.sum()} of {len(word)} words have a vector of the teacher")


def main() -> None:
    """Write the model that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="what build.py wrote")
    parser.add_argument("--out", type=Path, default=DATA / "start")
    arguments = parser.parse_args()
    start(arguments.out, arguments.data)


if __name__ == "__main__":
    main()
