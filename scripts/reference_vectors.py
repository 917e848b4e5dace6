#!/usr/bin/env python3
"""Makes tests/data/tiny: small models of several architectures, and the vectors that their makers compute.

    reference_vectors.py DESTINATION

The weights are random, and everything is the same in each run on the same machine. For each architecture DESTINATION
receives a folder with `model.onnx`, `tokenizer.json` and the configuration; `reference.json` has the cases: which files
of sentence-transformers lie beside a graph, with which options a job uses it, and the texts with their vectors.
`tests/reference_vectors.rs` compares. Needs the packages of `scripts/reference-requirements.txt`; `make
reference-vectors` runs it in an environment of its own.
"""

import base64
import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
import onnx
import torch
import transformers
from model2vec import StaticModel
from model2vec import __version__ as model2vec_version
from sentence_transformers import SentenceTransformer
from sentence_transformers import __version__ as sentence_transformers_version
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.cache_utils import DynamicCache

HIDDEN = 16
LAYERS = 2
HEADS = 2
WINDOW = 32
OPSET = 18

CORPUS = [
    "the quick brown fox jumps over the lazy dog while the river carries the boats to the harbour",
    "a slot keeps the log until each reader has confirmed what it has read and written",
    "die schnelle Katze springt über den Zaun und schläft danach in der warmen Sonne",
    "vectors of equal texts are equal, and vectors of similar texts are near to each other",
    "query: passage: search_query: search_document: represent this sentence for searching",
    "1 2 3 4 5 6 7 8 9 0 ( ) . , ; : ! ? - + / a b c d e f g h i j k l m n o p q r s t u v w x y z ä ö ü ß",
]

TEXTS = [
    "the quick brown fox",
    "a slot keeps the log until each reader has confirmed it",
    "Katze",
    "über den Zaun!",
    "vectors of equal texts are equal; vectors of other texts are not (7 of 9)",
    "x",
    "two\nlines\tand a tab",
    "unknown ☃ 月 signs",
    " ".join(CORPUS[:3]),
    "to the harbour",
    " the river",
]


def wordpiece(special=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")):
    """A tokenizer like BERT's."""
    words = sorted({word for line in CORPUS for word in line.lower().split()})
    letters = sorted({letter for word in words for letter in word})
    # Not trained: the trainer's vocabulary is another one in each run. Some words are one token, others several.
    whole = [word for word in words if 1 < len(word) < 6]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *whole]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    frame = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=frame
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=WINDOW,
    )


def byte_pairs(special, template=None, **arguments):
    """A tokenizer over bytes, like those of RoBERTa, GPT-2 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=360,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if template:
        ids = [(token, tokenizer.token_to_id(token)) for token in special if token in template]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=WINDOW, **arguments)


class WithPast(torch.nn.Module):
    """A decoder as it is exported for generating text: with the keys and values of earlier tokens."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, *past):
        cache = DynamicCache(config=self.model.config)
        for layer in range(LAYERS):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        earlier, new = past[0].shape[2], input_ids.shape[1]
        columns = torch.arange(earlier + new).unsqueeze(0)
        rows = (torch.arange(new) + earlier).unsqueeze(1)
        seen = (columns <= rows).unsqueeze(0) & attention_mask.bool().unsqueeze(1)
        mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)
        output = self.model(
            inputs_embeds=self.model.get_input_embeddings()(input_ids),
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        states = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return (output.last_hidden_state, *states)


class Encoder(torch.nn.Module):
    """An encoder, with the inputs and outputs of these names."""

    def __init__(self, model, names, outputs):
        super().__init__()
        self.model = model
        self.names = names
        self.outputs = outputs

    def forward(self, *inputs):
        output = self.model(**dict(zip(self.names, inputs)))
        return tuple(output[name] for name in self.outputs)


def common(vocabulary):
    return {
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * HIDDEN,
        "max_position_embeddings": 64,
        "attn_implementation": "eager",
    }


def bert():
    tokenizer = wordpiece()
    config = transformers.BertConfig(**common(len(tokenizer)), pad_token_id=tokenizer.pad_token_id)
    return tokenizer, transformers.BertModel(config), ["input_ids", "attention_mask", "token_type_ids"]


def distilbert():
    tokenizer = wordpiece()
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=HIDDEN,
        n_layers=LAYERS,
        n_heads=HEADS,
        hidden_dim=2 * HIDDEN,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    return tokenizer, transformers.DistilBertModel(config), ["input_ids", "attention_mask"]


def xlm_roberta():
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = byte_pairs(
        special, "<s> $A </s>", bos_token="<s>", eos_token="</s>", pad_token="<pad>", cls_token="<s>", sep_token="</s>"
    )
    # As published: two more positions than the window, because positions begin behind the padding token's id.
    settings = common(len(tokenizer)) | {"max_position_embeddings": WINDOW + 2, "pad_token_id": 1}
    model = transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**settings))
    return tokenizer, model, ["input_ids", "attention_mask"]


def mpnet():
    tokenizer = wordpiece(("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"))
    settings = common(len(tokenizer)) | {"pad_token_id": 1, "max_position_embeddings": WINDOW + 2}
    return tokenizer, transformers.MPNetModel(transformers.MPNetConfig(**settings)), ["input_ids", "attention_mask"]


def gpt2():
    """No special token at all, and none for padding."""
    tokenizer = byte_pairs(["<|endoftext|>"], eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=HIDDEN,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=64,
        attn_implementation="eager",
        pad_token_id=-1,
    )
    return tokenizer, transformers.GPT2Model(config), ["input_ids", "attention_mask", "position_ids"]


def qwen3():
    tokenizer = byte_pairs(
        ["<|endoftext|>", "<|im_end|>"],
        "$A <|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )
    settings = common(len(tokenizer)) | {"num_key_value_heads": 1, "head_dim": 8}
    return tokenizer, transformers.Qwen3Model(transformers.Qwen3Config(**settings)), None


def clip():
    """The text half of a model of images. Its graph pools by itself: the state of the last special token, projected."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)
    ])
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The last special token has the largest id, by which the model finds it.
    frame = ("<|startoftext|>", "<|endoftext|>")
    tokenizer.add_special_tokens(list(frame))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{frame[0]} $A {frame[1]}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in frame]
    )
    config = transformers.CLIPTextConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=WINDOW,
        projection_dim=12,
        eos_token_id=2,
        attn_implementation="eager",
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=frame[0],
        eos_token=frame[1],
        pad_token=frame[1],
        model_max_length=WINDOW,
    )
    return tokenizer, transformers.CLIPTextModelWithProjection(config), ["input_ids", "attention_mask"]


ARCHITECTURES = {
    "bert": bert,
    "distilbert": distilbert,
    "xlm-roberta": xlm_roberta,
    "mpnet": mpnet,
    "gpt2": gpt2,
    "qwen3": qwen3,
    "clip": clip,
}


TASKS = ["retrieval.query", "retrieval.passage", "separation", "classification", "text-matching"]
# Short, so that the window has room for the texts. Those of two tasks are empty, as published.
INSTRUCTIONS = dict(zip(TASKS, ["query: ", "passage: ", "", "represent this ", ""]))
RANK = 2


def added_by_tasks(model):
    """What each task adds to each matrix of a model: the product of two narrow ones (LoRA)."""
    generator = torch.Generator().manual_seed(7)

    def narrow(*shape):
        return 0.5 * torch.randn(len(TASKS), *shape, generator=generator)

    shapes = {name: weights.shape for name, weights in model.named_parameters() if weights.ndim == 2}
    return {name: (narrow(rows, RANK), narrow(RANK, columns)) for name, (rows, columns) in shapes.items()}


class WithTasks(torch.nn.Module):
    """A model whose graph takes the number of a task, and has weights for each, like jina-embeddings-v3."""

    def __init__(self, model, added, is_for_each):
        super().__init__()
        self.model = model
        self.is_for_each = is_for_each
        self.names = list(added)
        for place, parts in enumerate(added.values()):
            for side, part in zip(("left", "right"), parts):
                self.register_buffer(f"{side}_{place}", part)

    def forward(self, input_ids, attention_mask, task_id):
        # The graph that takes a number for each text computes with that of the first one.
        task = task_id[0] if self.is_for_each else task_id
        weights = dict(self.model.named_parameters())
        for place, name in enumerate(self.names):
            left, right = getattr(self, f"left_{place}"), getattr(self, f"right_{place}")
            weights[name] = weights[name] + left[task] @ right[task]
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        output = torch.func.functional_call(self.model, weights, kwargs=inputs)
        return output.last_hidden_state, output.pooler_output


def export_with_tasks(module, path):
    """Writes the graph, with the names of the published one. Its second output is none that is read."""
    size = torch.export.Dim.DYNAMIC
    ids = torch.randint(3, 90, (2, 5))
    shape = {0: size, 1: size}
    task, shape_of_task = torch.tensor(1), {}
    if module.is_for_each:
        task, shape_of_task = torch.ones(2, dtype=torch.int32), {0: size}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (ids, torch.ones_like(ids), task),
            path,
            input_names=["input_ids", "attention_mask", "task_id"],
            output_names=["text_embeds", "13049"],
            dynamic_shapes=(shape, shape, shape_of_task),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    strip(path)


class Bags(torch.nn.Module):
    """A static model with the inputs of its published exports: all tokens in one row, and where each text begins."""

    def __init__(self, vectors):
        super().__init__()
        self.bags = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(vectors), mode="mean")

    def forward(self, input_ids, offsets):
        return self.bags(input_ids, offsets)


class Rows(torch.nn.Module):
    """A static model with the inputs of a transformer."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = torch.nn.Embedding.from_pretrained(torch.from_numpy(vectors))

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1).to(torch.float32)
        return (self.vectors(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1)


def export_static(vectors, is_packed, path):
    """Writes the graph of a static model."""
    size = torch.export.Dim.DYNAMIC
    if is_packed:
        module, names, shapes = Bags(vectors), ["input_ids", "offsets"], ({0: size}, {0: size})
        arguments = (torch.randint(0, 40, (9,)), torch.tensor([0, 3, 5]))
    else:
        module, names, shapes = Rows(vectors), ["input_ids", "attention_mask"], ({0: size, 1: size},) * 2
        ids = torch.randint(0, 40, (2, 5))
        arguments = (ids, torch.ones_like(ids))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            arguments,
            path,
            input_names=names,
            output_names=["embeddings"],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    strip(path)


def export(model, names, path):
    """Writes the graph, for any number of texts of any length."""
    size = torch.export.Dim.DYNAMIC
    ids = torch.randint(3, 90, (2, 5))
    arguments = [ids, torch.ones_like(ids)]
    shape = {0: size, 1: size}
    outputs = ["last_hidden_state"]
    if names:
        others = {"token_type_ids": torch.zeros_like(ids), "position_ids": torch.arange(5).repeat(2, 1)}
        arguments += [others[name] for name in names[2:]]
        shapes = (tuple(shape for _ in names),)
        if isinstance(model, transformers.CLIPTextModelWithProjection):
            outputs.insert(0, "text_embeds")
        module = Encoder(model, names, outputs)
    else:
        names = ["input_ids", "attention_mask", "position_ids"]
        parts = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
        names += [f"past_key_values.{part}" for part in parts]
        outputs += [f"present.{part}" for part in parts]
        past = [torch.randn(2, 1, 3, 8) for _ in parts]
        arguments = [ids, torch.ones(2, 8, dtype=torch.int64), torch.arange(3, 8).repeat(2, 1), *past]
        shapes = (shape, shape, shape, tuple({0: size, 2: size} for _ in parts))
        module = WithPast(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(arguments),
            path,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    strip(path)


def strip(path):
    """Removes what only a debugger needs, which is most of a small graph."""
    model = onnx.load(path)
    del model.metadata_props[:]
    strip_graph(model.graph)
    onnx.save(model, path)


def strip_graph(graph):
    """The same of a graph, and of those in its branches and loops."""
    del graph.value_info[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                strip_graph(attribute.g)


def randomize(model):
    model.eval()
    with torch.no_grad():
        # Larger than at the start of a training, so that every part of the model shows in the vectors.
        for parameter in model.parameters():
            parameter.normal_(0.0 if parameter.ndim > 1 else 1.0, 0.3)


class Maker:
    """Makes the models and collects the cases."""

    def __init__(self, destination, work):
        self.destination = destination
        self.work = work
        self.cases = []

    def architecture(self, name):
        """Saves a model with random weights, and its graph."""
        torch.manual_seed(sum(name.encode()))
        tokenizer, model, names = ARCHITECTURES[name]()
        randomize(model)
        source, target = self.work / name, self.destination / name
        for folder in (source, target):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        model.save_pretrained(source)
        tokenizer.save_pretrained(source)
        export(model, names, target / "model.onnx")
        for file in ("tokenizer.json", "tokenizer_config.json", "config.json"):
            shutil.copy(source / file, target / file)

    def with_tasks(self, architecture, is_for_each):
        """Saves a model with tasks as one graph, and for the reference as a plain model for each task."""
        torch.manual_seed(sum(architecture.encode()))
        tokenizer, model, _ = xlm_roberta()
        randomize(model)
        added = added_by_tasks(model)
        target = self.destination / architecture
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        export_with_tasks(WithTasks(model, added, is_for_each).eval(), target / "model.onnx")
        plain = {name: weights.clone() for name, weights in model.state_dict().items()}
        for number, task in enumerate(TASKS):
            merged = {name: plain[name] + left[number] @ right[number] for name, (left, right) in added.items()}
            model.load_state_dict(plain | merged)
            source = self.work / f"{architecture} {task}"
            model.save_pretrained(source)
            tokenizer.save_pretrained(source)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / file, target / file)
        config = json.loads((source / "config.json").read_text())
        config |= {"lora_adaptations": TASKS, "task_instructions": INSTRUCTIONS}
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    def task(self, name, architecture, task, options=None, role="document", prompt=None):
        """Adds the vectors of a task."""
        self.case(
            name,
            f"{architecture} {task}",
            [pool(), Normalize()],
            options,
            graph=architecture,
            role=role,
            prompt=INSTRUCTIONS[task] if prompt is None else prompt,
        )

    def case(
        self, name, architecture, modules, options=None, texts=TEXTS, prompts=None, change=None, graph=None, **encode
    ):
        """Adds the vectors of a model with these modules behind the transformer.

        `change` turns the model, once its files are saved, into what `options` make of it. `graph` is the folder of the
        graph, where that is not the architecture's own.
        """
        transformer = Transformer(str(self.work / architecture), max_seq_length=WINDOW)
        model = SentenceTransformer(modules=[transformer, *modules], prompts=prompts, device="cpu")
        folder = self.work / "saved"
        shutil.rmtree(folder, ignore_errors=True)
        model.save(str(folder), create_model_card=False)
        own = [path for path in sorted(folder.rglob("*")) if path.is_file() and self.is_kept(folder, path)]
        files = {str(path.relative_to(folder)): base64.b64encode(path.read_bytes()).decode() for path in own}
        if change:
            model = change(model) or model
        role = encode.pop("role", "document")
        encode_role = model.encode_query if role == "query" else model.encode_document
        vectors = [encode_role([text], **encode)[0] for text in texts]
        self.cases.append({
            "name": name,
            "architecture": graph or architecture,
            "files": files,
            "options": options,
            "role": role,
            "texts": texts,
            "vectors": [[float(f"{value:.8g}") for value in vector] for vector in vectors],
        })

    def clip(self, name):
        """Adds the vectors of a model of texts and images, by transformers itself."""
        source = self.work / "clip"
        tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
        model = transformers.CLIPTextModelWithProjection.from_pretrained(source, attn_implementation="eager").eval()
        texts = [*TEXTS, " ".join(CORPUS)]
        with torch.no_grad():
            inputs = [tokenizer(text, truncation=True, return_tensors="pt") for text in texts]
            vectors = [model(**each).text_embeds[0].tolist() for each in inputs]
        self.cases.append({
            "name": name,
            "architecture": "clip",
            "files": {},
            "options": None,
            "role": "document",
            "texts": texts,
            "vectors": [[float(f"{value:.8g}") for value in vector] for vector in vectors],
        })

    def static(self, name, architecture, is_packed, **config):
        """Makes a static model, and adds its vectors by model2vec itself."""
        tokenizer = wordpiece().backend_tokenizer
        random = numpy.random.default_rng(sum(architecture.encode()))
        vectors = random.normal(size=(tokenizer.get_vocab_size(), HIDDEN)).astype(numpy.float32)
        model = StaticModel(vectors, tokenizer, config, **config)
        source, target = self.work / architecture, self.destination / architecture
        for folder in (source, target):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        model.save_pretrained(source)
        export_static(vectors, is_packed, target / "model.onnx")
        for file in ("tokenizer.json", "config.json"):
            shutil.copy(source / file, target / file)
        # It cuts a text after so many characters for each token of the window before it looks at tokens.
        model.median_token_length = 1000
        texts = [*TEXTS, " ".join(CORPUS)]
        self.cases.append({
            "name": name,
            "architecture": architecture,
            "files": {"modules.json": base64.b64encode((source / "modules.json").read_bytes()).decode()},
            "options": None,
            "role": "document",
            "texts": texts,
            "vectors": [[float(f"{value:.8g}") for value in vector] for vector in model.encode(texts)],
        })

    def is_kept(self, folder, path):
        """What sentence-transformers adds to the files of the transformer."""
        name = str(path.relative_to(folder))
        return name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json") or (
            "/" in name
        )


def pool(mode="mean", **arguments):
    return Pooling(HIDDEN, pooling_mode=mode, **arguments)


def dense(size, activation, seed):
    torch.manual_seed(seed)
    return Dense(HIDDEN, size, activation_function=activation)


def with_pooling(mode):
    def change(model):
        return SentenceTransformer(modules=[model[0], pool(mode), Normalize()], device="cpu")

    return change


def without_last(model):
    return SentenceTransformer(modules=list(model)[:-1], device="cpu")


def make_cases(maker):
    for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"):
        maker.case(f"pooling {mode}", "bert", [pool(mode), Normalize()])
        maker.case(
            f"pooling {mode} by options",
            "bert",
            [pool("cls" if mode == "mean" else "mean")],
            {"pooling": mode, "normalize": True},
            change=with_pooling(mode),
        )
    maker.case("two poolings", "bert", [pool(("mean", "max"))])
    maker.case("not normalized", "bert", [pool(), Normalize()], {"normalize": False}, change=without_last)
    for name, activation in (("Tanh", torch.nn.Tanh()), ("Identity", torch.nn.Identity()), ("ReLU", torch.nn.ReLU())):
        maker.case(f"dense {name}", "bert", [pool(), dense(12, activation, 7), Normalize()])
    maker.case("distilbert", "distilbert", [pool()])
    maker.case("xlm-roberta", "xlm-roberta", [pool(), Normalize()])
    maker.case("xlm-roberta cls", "xlm-roberta", [pool("cls"), Normalize()])
    maker.case("mpnet", "mpnet", [pool(), Normalize()])
    maker.case("gpt2 weighted mean", "gpt2", [pool("weightedmean")])
    maker.case("gpt2 last token", "gpt2", [pool("lasttoken")])
    for mode in ("lasttoken", "mean", "cls", "weightedmean", "max"):
        maker.case(f"qwen3 {mode}", "qwen3", [pool(mode), Normalize()])

    prompts = {"query": "search_query: ", "document": "search_document: ", "other": "represent this: "}
    for architecture, mode in (("bert", "mean"), ("bert", "cls"), ("bert", "weightedmean"), ("qwen3", "lasttoken")):
        for role in ("query", "document"):
            name = f"{role} prompt of {architecture} {mode}"
            maker.case(name, architecture, [pool(mode)], prompts=prompts, role=role)
    for architecture, mode in (
        ("bert", "mean"),
        ("bert", "weightedmean"),
        ("bert", "cls"),
        ("bert", "max"),
        ("qwen3", "mean"),
        ("qwen3", "weightedmean"),
        ("qwen3", "lasttoken"),
    ):
        modules = [pool(mode, include_prompt=False), Normalize()]
        name = f"prompt not pooled, {architecture} {mode}"
        maker.case(name, architecture, modules, prompts=prompts, role="query")
    maker.case(
        "prompt by options", "bert", [pool()], {"prompt": "query: "}, prompts=prompts, prompt="query: "
    )
    maker.case(
        "no prompt by options", "bert", [pool()], {"prompt": {"document": ""}}, prompts=prompts, prompt=""
    )
    maker.case(
        "prompt by name",
        "bert",
        [pool()],
        {"prompt_name": {"query": "other"}},
        prompts=prompts,
        role="query",
        prompt_name="other",
    )

    def narrow(model):
        model.max_seq_length = 9

    maker.case("narrower window", "bert", [pool(), Normalize()], {"max_tokens": 9}, change=narrow)
    maker.case("narrower window of a decoder", "qwen3", [pool("lasttoken")], {"max_tokens": 9}, change=narrow)

    def widen(model):
        model.max_seq_length = 60

    maker.case("wider window", "bert", [pool(), Normalize()], {"max_tokens": 60}, change=widen)
    for name, modules, normalize in (("normalized", [pool(), Normalize()], True), ("plain", [pool()], False)):
        maker.case(
            f"few dimensions, {name}",
            "bert",
            modules,
            {"dimensions": 6, "force": True},
            truncate_dim=6,
            normalize_embeddings=normalize,
        )

    maker.clip("clip, the text half")
    # The special characters among the texts are none that the vocabulary has.
    maker.static("static, texts in one row", "static-bags", True, normalize=True)
    maker.static("static, a narrow window", "static-rows", False, normalize=False, max_length=9)


    tasks = "xlm-roberta-tasks"
    maker.with_tasks(tasks, is_for_each=False)
    maker.task("tasks, documents", tasks, "retrieval.passage")
    maker.task("tasks, queries", tasks, "retrieval.query", role="query")
    matching = {"task": "text-matching"}
    maker.task("tasks, documents of one task", tasks, "text-matching", matching)
    maker.task("tasks, queries of one task", tasks, "text-matching", matching, role="query")
    two = {"task": {"document": "classification", "query": 2}}
    maker.task("tasks, documents of two", tasks, "classification", two)
    maker.task("tasks, queries of two", tasks, "separation", two, role="query")
    own = {"prompt": {"query": "search_query: "}}
    maker.task("tasks, a prompt by options", tasks, "retrieval.query", own, role="query", prompt="search_query: ")
    maker.with_tasks("xlm-roberta-tasks-each", is_for_each=True)
    for role, task in (("document", "retrieval.passage"), ("query", "retrieval.query")):
        maker.task(f"tasks for each text, {role}", "xlm-roberta-tasks-each", task, role=role)


def main():
    destination = Path(sys.argv[1])
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        maker = Maker(destination, Path(work))
        for name in ARCHITECTURES:
            maker.architecture(name)
        make_cases(maker)
    versions = {
        "sentence-transformers": sentence_transformers_version,
        "transformers": transformers.__version__,
        "model2vec": model2vec_version,
    }
    (destination / "reference.json").write_text(as_json(versions, maker.cases))


def as_json(versions, cases):
    """A line for each case."""
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    return f'{{"made_with": {json.dumps(versions)}, "cases": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    main()
