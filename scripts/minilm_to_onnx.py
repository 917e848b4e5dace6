#!/usr/bin/env python3
"""Makes a sentence-transformers model folder with an ONNX graph from published BERT weights.

    minilm_to_onnx.py SOURCE DESTINATION

SOURCE holds `model.safetensors`, `config.json`, `tokenizer.json` and the other JSON files of a sentence-transformers
model on the BERT architecture (all-MiniLM-L6-v2 and its kin). DESTINATION receives those JSON files and `model.onnx`:
fp32, opset 17, inputs `input_ids`, `attention_mask` and `token_type_ids` (int64, [batch, sequence]), output
`last_hidden_state` (float32, [batch, sequence, hidden]).

The graph is written out operator by operator instead of being traced, so that the result depends on nothing but the
weights: no torch is needed, and the same weights give the same bytes. Attention is the classic chain of MatMul, Add,
Softmax and MatMul; on CPUs ONNX Runtime runs it faster than exports with a fused attention operator.
"""

import json
import math
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
# Opset 17 came with IR version 8; a higher number would shut out older runtimes for nothing.
IR_VERSION = 8


class Weights:
    """The tensors of a safetensors file, by name, without the prefix that some checkpoints carry."""

    DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}

    def __init__(self, path):
        data = path.read_bytes()
        (header_length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + header_length])
        self._body = memoryview(data)[8 + header_length :]
        self._index = {
            name.removeprefix("bert."): entry for name, entry in header.items() if name != "__metadata__"
        }

    def __getitem__(self, name):
        entry = self._index[name]
        start, end = entry["data_offsets"]
        flat = np.frombuffer(self._body[start:end], dtype=self.DTYPES[entry["dtype"]])
        return flat.reshape(entry["shape"]).astype(np.float32)


class Graph:
    """Collects nodes and initialisers; every method returns the name of the tensor it makes."""

    def __init__(self):
        self.nodes = []
        self.initializers = []
        self._constants = {}

    def tensor(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def constant(self, value, dtype):
        key = (np.dtype(dtype).name, json.dumps(value))
        if key not in self._constants:
            name = f"constant.{len(self._constants)}"
            self._constants[key] = self.tensor(name, np.array(value, dtype=dtype))
        return self._constants[key]

    def ints(self, *values):
        return self.constant(list(values), np.int64)

    def scalar(self, value):
        return self.constant(float(value), np.float32)

    def node(self, operator, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def linear(self, weights, source, hidden, output):
        """A dense layer: torch keeps its matrix as [out, in], MatMul wants [in, out]."""
        matrix = self.tensor(f"{source}.weight", weights[f"{source}.weight"].T)
        bias = self.tensor(f"{source}.bias", weights[f"{source}.bias"])
        product = self.node("MatMul", [hidden, matrix], f"{output}.product")
        return self.node("Add", [product, bias], output)

    def layer_norm(self, weights, source, hidden, output, epsilon):
        scale = self.tensor(f"{source}.weight", weights[f"{source}.weight"])
        bias = self.tensor(f"{source}.bias", weights[f"{source}.bias"])
        return self.node("LayerNormalization", [hidden, scale, bias], output, axis=-1, epsilon=epsilon)

    def gelu(self, hidden, output):
        """The exact form, x / 2 * (1 + erf(x / sqrt 2)), not the tanh approximation."""
        scaled = self.node("Div", [hidden, self.scalar(math.sqrt(2.0))], f"{output}.scaled")
        erf = self.node("Erf", [scaled], f"{output}.erf")
        shifted = self.node("Add", [erf, self.scalar(1.0)], f"{output}.shifted")
        product = self.node("Mul", [hidden, shifted], f"{output}.product")
        return self.node("Mul", [product, self.scalar(0.5)], output)


def embeddings(graph, weights, config):
    """Sum of word, position and token type embeddings, normalised."""
    words = graph.tensor("embeddings.word", weights["embeddings.word_embeddings.weight"])
    positions = graph.tensor("embeddings.position", weights["embeddings.position_embeddings.weight"])
    types = graph.tensor("embeddings.token_type", weights["embeddings.token_type_embeddings.weight"])

    word = graph.node("Gather", [words, "input_ids"], "embeddings.words")
    kind = graph.node("Gather", [types, "token_type_ids"], "embeddings.types")
    shape = graph.node("Shape", ["input_ids"], "embeddings.shape")
    length = graph.node("Gather", [shape, graph.ints(1)], "embeddings.length", axis=0)
    place = graph.node("Slice", [positions, graph.ints(0), length, graph.ints(0)], "embeddings.positions")

    total = graph.node("Add", [word, kind], "embeddings.words_and_types")
    total = graph.node("Add", [total, place], "embeddings.sum")
    return graph.layer_norm(weights, "embeddings.LayerNorm", total, "embeddings.out", config["layer_norm_eps"])


def additive_mask(graph):
    """0 for a real token and the lowest float for padding, as [batch, 1, 1, sequence]."""
    wide = graph.node("Unsqueeze", ["attention_mask", graph.ints(1, 2)], "mask.wide")
    real = graph.node("Cast", [wide], "mask.real", to=TensorProto.FLOAT)
    padding = graph.node("Sub", [graph.scalar(1.0), real], "mask.padding")
    return graph.node("Mul", [padding, graph.scalar(np.finfo(np.float32).min)], "mask.out")


def attention(graph, weights, config, prefix, hidden, mask):
    heads = config["num_attention_heads"]
    width = config["hidden_size"] // heads
    split = graph.ints(0, 0, heads, width)

    def project(part, permutation):
        flat = graph.linear(weights, f"{prefix}.attention.self.{part}", hidden, f"{prefix}.{part}")
        apart = graph.node("Reshape", [flat, split], f"{prefix}.{part}.heads")
        return graph.node("Transpose", [apart], f"{prefix}.{part}.out", perm=permutation)

    query = project("query", [0, 2, 1, 3])
    key = project("key", [0, 2, 3, 1])
    value = project("value", [0, 2, 1, 3])

    scores = graph.node("MatMul", [query, key], f"{prefix}.scores")
    scores = graph.node("Div", [scores, graph.scalar(math.sqrt(width))], f"{prefix}.scores.scaled")
    scores = graph.node("Add", [scores, mask], f"{prefix}.scores.masked")
    shares = graph.node("Softmax", [scores], f"{prefix}.shares", axis=-1)
    context = graph.node("MatMul", [shares, value], f"{prefix}.context")
    context = graph.node("Transpose", [context], f"{prefix}.context.rows", perm=[0, 2, 1, 3])
    return graph.node("Reshape", [context, graph.ints(0, 0, heads * width)], f"{prefix}.context.out")


def layer(graph, weights, config, prefix, hidden, mask, output):
    epsilon = config["layer_norm_eps"]
    context = attention(graph, weights, config, prefix, hidden, mask)
    dense = graph.linear(weights, f"{prefix}.attention.output.dense", context, f"{prefix}.attended")
    total = graph.node("Add", [dense, hidden], f"{prefix}.attended.sum")
    attended = graph.layer_norm(weights, f"{prefix}.attention.output.LayerNorm", total, f"{prefix}.middle", epsilon)

    inner = graph.linear(weights, f"{prefix}.intermediate.dense", attended, f"{prefix}.inner")
    inner = graph.gelu(inner, f"{prefix}.inner.gelu")
    outer = graph.linear(weights, f"{prefix}.output.dense", inner, f"{prefix}.outer")
    total = graph.node("Add", [outer, attended], f"{prefix}.outer.sum")
    return graph.layer_norm(weights, f"{prefix}.output.LayerNorm", total, output, epsilon)


def build(weights, config):
    if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
        raise SystemExit("only the BERT architecture with the gelu activation is known here")

    graph = Graph()
    hidden = embeddings(graph, weights, config)
    mask = additive_mask(graph)
    last = config["num_hidden_layers"] - 1
    for number in range(last + 1):
        output = "last_hidden_state" if number == last else f"encoder.layer.{number}.out"
        hidden = layer(graph, weights, config, f"encoder.layer.{number}", hidden, mask, output)

    shape = ["batch", "sequence"]
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    onnx_graph = helper.make_graph(
        graph.nodes,
        "bert",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in inputs],
        [helper.make_tensor_value_info(hidden, TensorProto.FLOAT, [*shape, config["hidden_size"]])],
        graph.initializers,
    )
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="lantern-cli")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def main():
    if len(sys.argv) != 3:
        raise SystemExit("usage: minilm_to_onnx.py SOURCE DESTINATION")
    source, destination = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((source / "config.json").read_text())
    model = build(Weights(source / "model.safetensors"), config)

    for path in sorted(source.rglob("*.json")):
        target = destination / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    # Written under another name first: a folder with a `model.onnx` is a folder with a whole one.
    partial = destination / "model.onnx.partial"
    partial.write_bytes(model.SerializeToString(deterministic=True))
    partial.rename(destination / "model.onnx")
    for required in ("modules.json", "tokenizer.json", "1_Pooling/config.json"):
        if not (destination / required).is_file():
            raise SystemExit(f"{source / required} is missing: this is no sentence-transformers model")


if __name__ == "__main__":
    main()
