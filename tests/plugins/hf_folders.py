"""Folders as transformers writes them, of small versions of its real architectures with random weights."""

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sparc.plugins.contracts import Sample
from sparc_plugins import hf_encoders
from tests.plugins.backbones import SAMPLES, offered

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "picture", "number", *map(str, range(10))]
SMALL = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
EYE = {**SMALL, "image_size": 32, "patch_size": 8}
ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
TONGUE = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 12, **ENDS}
BERT = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 12}
IMAGE_SIZE = {"size": {"height": 32, "width": 32}}
SHORT, LONG = Sample("0", caption="picture"), Sample("1", caption="picture number 1 2 3 4")


def save_tokenizer(folder, *, template="<s> $A </s>", words=WORDS, **options):
    """Save a tokenizer of whole words that adds a token at each end, as BERT's and CLIP's do."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("<s>", 2), ("</s>", 3)]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", **options}
    hf.PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


def save_model(folder, config):
    torch.manual_seed(1)
    hf.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def load(stream, folder, **params):
    spec = offered(hf_encoders)[stream]
    return spec.load(spec.params(weights=str(folder), **params), "cpu")


def load_hf(stream, folder, pool="pooled"):
    return load(stream, folder, model="lab/model", pool=pool)


def by_hand(folder):
    return hf.AutoModel.from_pretrained(folder).eval()


def pixels(folder, samples=SAMPLES):
    processor = hf.AutoImageProcessor.from_pretrained(folder)
    return processor(images=[sample.image() for sample in samples], return_tensors="pt")


def words(folder, samples, **options):
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    return tokenizer([sample.text() for sample in samples], return_tensors="pt", **options)
