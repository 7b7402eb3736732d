"""The sizes of a decoder, from the entries of its config.json alone.

Of known families (`models/decoder_families.py`) they are exact. Of others the usual entries are read, so that
their memory and time can at least be estimated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from ..config.specs import LoraGroup
from ..errors import ModelLoadError
from ..files.atomic_json import read_json
from ..models.attention_heads import Heads
from ..models.decoder_families import (
    FAMILIES,
    LAYER_EMBEDDING_MODULES,
    LLAMA,
    Family,
    decoder_entries,
    family_of,
)
from ..models.expert_layers import DOWN, GATE_UP, ExpertSizes, expert_sizes, is_mxfp4, target_name
from ..models.known_config import complete_config
from ..untrusted import quoted
from .graphs import LARGEST_MODEL

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head",),
    "intermediate_size": ("n_inner", "ffn_dim", "d_inner"),
    "vocab_size": (),
}
"""What families call an entry that others call by its first name."""
MXFP4_BYTES = 1 / 2 + 1 / 32
"""Of a weight: half a byte, and its share of a block's power of two."""
LARGEST, MOST_LAYERS = 1 << 24, 4096
"""No size of a model is larger: numbers beyond it are mistakes, and not computed with."""
OBJECTS = ("text_config", "quantization_config", "rope_parameters", "rope_scaling", "per_layer_config")
WIDEST_FLASH_HEAD = 256
"""Dimensions; FlashAttention takes no larger heads."""
LISTS = ("architectures", "layer_types")


class Linear(NamedTuple):
    """Linear modules of a layer that read the same input, as one product."""

    inputs: int
    outputs: Mapping[str, int]

    @property
    def rows(self) -> int:
        return sum(self.outputs.values())


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder. Where its layers differ, `kinds` has those of each kind as a shape of its own, and
    what is said of one layer is to be asked of these.

    Args:
        exact: whether the family is one whose layers are known; else it is an estimate.
        family: what its layers are like; Llama's where they are not known.
        stored_4bit: whether its checkpoint holds the weights in 4 bits.
        experts: feed-forward blocks per layer, of families whose layers are not known; 1 without experts.
        routed: of known families with experts.
        mxfp4: whether its checkpoint holds these in MXFP4.
    """

    hidden_size: int
    num_layers: int
    heads: Heads
    intermediate_size: int
    vocab_size: int
    tied: bool
    qk_norm: bool
    exact: bool
    stored_4bit: bool = False
    experts: int = 1
    family: Family = LLAMA
    routed: ExpertSizes | None = None
    mxfp4: bool = False
    per_layer_embedding: int = 0
    """Numbers in Gemma's table with a small embedding of each token for each layer."""
    token_layer_size: int = 0
    """Of such an embedding, where the family's layers are known."""
    shared_keys: int = 0
    """Numbers of a token in keys, values and their layer's queries that are kept for later layers."""
    apart: tuple[DecoderShape, ...] = ()
    """The kinds of layers, where there are several."""

    @property
    def kinds(self) -> tuple[DecoderShape, ...]:
        return self.apart or (self,)

    @property
    def query(self) -> int:
        return self.heads.num_heads * self.heads.head_dim

    @property
    def projected(self) -> int:
        """Numbers of a token that come out of the projections of queries, keys and values."""
        return sum(self.heads.projected)

    @property
    def qkv(self) -> int:
        """Likewise what attention is given of its own layer."""
        return self.heads.all * self.heads.head_dim

    @property
    def has_sides(self) -> bool:
        """Whether experts and a dense MLP stand beside each other, each between norms of its own."""
        return self.routed is not None and self.routed.family.beside

    @property
    def takes_flash(self) -> bool:
        return all(kind.heads.head_dim <= WIDEST_FLASH_HEAD for kind in self.kinds)

    @property
    def graphed(self) -> bool:
        """Whether the packed engine's steps are CUDA graphs, on a GPU and without dropout."""
        return self.parameters < LARGEST_MODEL and self.routed is None and self.takes_flash

    @property
    def linears(self) -> tuple[Linear, ...]:
        """qkv, o_proj, gate_up and down_proj of one layer; with experts, those of its shared MLP, if any."""
        if self.routed is None:
            return self._linears(self.intermediate_size)
        return self._linears(self.routed.shared_width)

    def _linears(self, inner: int) -> tuple[Linear, ...]:
        hidden, size = self.hidden_size, self.token_layer_size
        attention = (
            Linear(hidden, named(self.family.qkv, self.heads.projected)),
            Linear(self.query, {"o_proj": hidden}),
        )
        mlp = (
            Linear(hidden, named(self.family.gate_up, (inner, inner))),
            Linear(inner, {"down_proj": hidden}),
        )
        gate, back, _ = LAYER_EMBEDDING_MODULES
        branch = (Linear(hidden, {gate: size}), Linear(size, {back: hidden})) if size else ()
        return (*attention, *(mlp if inner else ()), *branch)

    @property
    def model_linears(self) -> tuple[Linear, ...]:
        """Those outside of layers."""
        columns = self.num_layers * self.token_layer_size
        made = Linear(self.hidden_size, {LAYER_EMBEDDING_MODULES[2]: columns})
        return (made,) if columns else ()

    @property
    def expert_linears(self) -> tuple[Linear, ...]:
        """Those of one expert."""
        if self.routed is None:
            return ()
        hidden, width = self.hidden_size, self.routed.width
        return Linear(hidden, {GATE_UP: 2 * width}), Linear(width, {DOWN: hidden})

    @property
    def sparse_layers(self) -> int:
        """Layers with experts."""
        return 0 if self.routed is None else sum(self.routed.sparse)

    @property
    def mlp_width(self) -> int:
        """What a token meets of the intermediate sizes of a layer."""
        routed = self.routed
        return (
            self.intermediate_size if routed is None else routed.chosen * routed.width + routed.shared_width
        )

    @property
    def expert_weights(self) -> int:
        """Numbers in the matrices of all experts of a layer."""
        return 0 if self.routed is None else self.routed.count * _numbers(self.expert_linears)

    @property
    def layer_weights(self) -> int:
        """Numbers in the matrices of a layer with all its experts; where some are dense, not of those."""
        qkv, o_proj, *mlp = (linear.inputs * linear.rows for linear in self.linears)
        return qkv + o_proj + self.experts * sum(mlp) + self.expert_weights

    @property
    def active_weights(self) -> float:
        """Those of them that a token meets."""
        if self.routed is None:
            return self.layer_weights / self.experts
        return _numbers(self.linears) + self.routed.chosen * _numbers(self.expert_linears)

    @property
    def matrix(self) -> int:
        """Numbers in the embedding, or in the head."""
        return self.vocab_size * self.hidden_size

    @property
    def parameters(self) -> int:
        matrices = self.matrix * (1 if self.tied else 2) + self.per_layer_embedding
        return matrices + _numbers(self.model_linears) + sum(kind.weights_of_layers for kind in self.kinds)

    @property
    def weights_of_layers(self) -> int:
        """Numbers in the matrices of all layers of one kind, routers included."""
        if self.routed is None:
            return self.num_layers * self.layer_weights
        dense = self.num_layers - self.sparse_layers
        routers = self.sparse_layers * self.routed.count * self.hidden_size
        sparse = self.sparse_layers * self.layer_weights
        return sparse + routers + dense * _numbers(self._linears(self.intermediate_size))

    @property
    def stored_bytes(self) -> int:
        """Of its checkpoint: in bf16, or experts as it says."""
        experts = self.sparse_layers * self.expert_weights if self.mxfp4 else 0
        return 2 * (self.parameters - experts) + round(MXFP4_BYTES * experts)

    @property
    def billions(self) -> float:
        return self.parameters / 1e9

    def lora_parameters(self, lora: LoraGroup) -> int:
        """Numbers in the LoRA matrices of all layers."""
        targets = targeted(lora, self.family)

        def of(linears: tuple[Linear, ...]) -> int:
            return sum(
                lora.r * (linear.inputs + rows)
                for linear in linears
                for name, rows in linear.outputs.items()
                if name in targets
            )

        def of_layers(kind: DecoderShape) -> int:
            if kind.routed is None:
                return kind.num_layers * of(kind.linears)
            dense = kind.num_layers - kind.sparse_layers
            sparse = of(kind.linears) + kind.routed.count * of(kind.expert_linears)
            return kind.sparse_layers * sparse + dense * of(kind._linears(kind.intermediate_size))

        return of(self.model_linears) + sum(of_layers(kind) for kind in self.kinds)


def _numbers(linears: tuple[Linear, ...]) -> int:
    return sum(linear.inputs * linear.rows for linear in linears)


def named(modules: tuple[str, ...], sizes: tuple[int, ...]) -> dict[str, int]:
    """Output sizes by module; one module has all of them, and there is none of size 0."""
    if len(modules) == 1:
        return {modules[0]: sum(sizes)}
    return {module: size for module, size in zip(modules, sizes, strict=True) if size}


def targeted(lora: LoraGroup, family: Family = LLAMA) -> tuple[str, ...]:
    """What of a layer gets a LoRA: linear modules by their last name, experts by `EXPERT_TARGETS`."""
    wanted = lora.target_modules
    if wanted == "all-linear":
        return family.modules
    if wanted == "attention":
        return family.attention_modules
    last = {target_name(name) for name in ([wanted] if isinstance(wanted, str) else wanted)}
    return tuple(name for name in family.targets if name in last)


def decoder_shape(config: Mapping[str, Any]) -> DecoderShape:
    """The sizes that the content of a config.json describes.

    Raises:
        ModelLoadError: an entry that is needed is missing, or no number that a model can have.
    """
    _require_forms(config)
    inside = decoder_entries(config)
    _require_forms(inside)
    family = str(inside.get("model_type"))
    exact = family in FAMILIES
    text: Mapping[str, Any] = config.get("text_config") or config
    entries = complete_config(inside) if exact else text
    hidden, heads = _size(entries, "hidden_size"), _size(entries, "num_attention_heads")
    shape = DecoderShape(
        hidden_size=hidden,
        num_layers=_size(entries, "num_hidden_layers", most=MOST_LAYERS),
        heads=Heads(
            heads,
            _size(entries, "num_key_value_heads", heads),
            _size(entries, "head_dim", max(1, hidden // heads)),
        ),
        intermediate_size=_size(entries, "intermediate_size") if exact else _inner(entries, hidden),
        vocab_size=_size(entries, "vocab_size"),
        tied=bool(config.get("tie_word_embeddings", entries.get("tie_word_embeddings", not exact))),
        qk_norm=exact and family_of(SimpleNamespace(**entries)).qk_norm is not None,
        exact=exact,
        stored_4bit=_stored_4bit(config.get("quantization_config")) or is_mxfp4(config),
        mxfp4=exact and is_mxfp4(config),
        experts=1 if exact else _size(entries, "num_local_experts", _size(entries, "num_experts", 1)),
        family=family_of(SimpleNamespace(**entries)) if exact else LLAMA,
        routed=_routed(entries, family_of(SimpleNamespace(**entries))) if exact else None,
        per_layer_embedding=_per_layer_embedding(entries),
    )
    return _by_kind(shape, SimpleNamespace(**entries)) if exact else shape


def _by_kind(shape: DecoderShape, entries: SimpleNamespace) -> DecoderShape:
    """With its kinds of layers, if they differ in size."""
    heads, widths = _sizes_of_layers(shape.family, entries)
    if shape.family.token_layer_size is not None:
        shape = replace(shape, token_layer_size=getattr(entries, shape.family.token_layer_size))
    found = Counter(zip(heads, widths, strict=True))
    sources = [heads[layer] for layer in {each.keys_of for each in heads} if layer is not None]
    shape = replace(shape, shared_keys=sum(each.all * each.head_dim for each in sources))
    if len(found) == 1:
        return shape
    routed = shape.routed
    kinds = tuple(
        replace(
            shape, num_layers=count, heads=each, intermediate_size=width,
            routed=routed and replace(routed, sparse=(True,) * count),
        )
        for (each, width), count in found.items()
    )  # fmt: skip
    return replace(shape, apart=kinds)


def _sizes_of_layers(family: Family, entries: SimpleNamespace) -> tuple[tuple[Heads, ...], tuple[int, ...]]:
    """The heads and the widths of all layers.

    Raises:
        ModelLoadError: they are no sizes of a model.
    """
    wrong = ModelLoadError(
        "config.json: the heads of its layers are not those of a model.",
        hint="Download the model's config.json again.",
    )
    try:
        heads, widths = family.heads(entries), family.widths(entries)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise wrong from error
    sizes = [size for each in heads for size in each[:3]]
    possible = all(type(size) is int and 0 < size <= LARGEST for size in sizes)
    if not possible or not len(heads) == len(widths) == entries.num_hidden_layers:
        raise wrong
    return heads, widths


def _routed(entries: Mapping[str, Any], family: Family) -> ExpertSizes | None:
    if family.experts is None:
        return None
    for name in (family.experts.count, family.experts.width, family.experts.chosen):
        _size(entries, name)
    wrong = ModelLoadError(
        "config.json: the sizes of its experts are not those of a model.",
        hint="Download the model's config.json again.",
    )
    try:
        sizes = expert_sizes(SimpleNamespace(**entries), family.experts)
    except (TypeError, ZeroDivisionError) as error:
        raise wrong from error
    if sizes.chosen > sizes.count or sizes.count % (sizes.groups or sizes.count + 1):
        raise wrong
    return sizes


def folder_shape(folder: Path) -> DecoderShape:
    """The sizes of the model in a folder; raises as `decoder_shape`."""
    return decoder_shape(read_json(folder / "config.json"))


def _per_layer_embedding(entries: Mapping[str, Any]) -> int:
    if not entries.get("hidden_size_per_layer_input"):
        return 0
    layers = _size(entries, "num_hidden_layers", most=MOST_LAYERS)
    rows = _size(entries, "vocab_size_per_layer_input", _size(entries, "vocab_size"))
    return layers * rows * _size(entries, "hidden_size_per_layer_input")


def _inner(entries: Mapping[str, Any], hidden: int) -> int:
    """Of the gated feed-forward block; GPT-2's has no gate, and is a third smaller than one of its width."""
    expert = entries.get("moe_intermediate_size")
    return _size({"intermediate_size": expert} if expert else entries, "intermediate_size", 8 * hidden // 3)


def _require_forms(config: Mapping[str, Any]) -> None:
    """Refuse entries that are read here or by `engine_choice` and are something else than they should be."""
    for name in OBJECTS:
        if not isinstance(config.get(name) or {}, Mapping):
            raise _wrong_form(name, "an object")
    for name in LISTS:
        found: Any = config.get(name) or []
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):  # pyright: ignore[reportUnknownVariableType]
            raise _wrong_form(name, "a list of names")
    if type(config.get("max_position_embeddings") or 1) is not int:
        raise _wrong_form("max_position_embeddings", "a whole number")


def _wrong_form(name: str, wanted: str) -> ModelLoadError:
    return ModelLoadError(
        f"config.json: {name} is not {wanted}.", hint="Download the model's config.json again."
    )


def _size(entries: Mapping[str, Any], name: str, default: int | None = None, most: int = LARGEST) -> int:
    names = (name, *OTHER_NAMES.get(name, ()))
    found: Any = next((entries[each] for each in names if entries.get(each) is not None), default)
    if type(found) is int and 0 < found <= most:
        return found
    told = "missing" if found is None else quoted(found)
    raise ModelLoadError(
        f"config.json: {name} is {told}, not the size of a model.",
        hint="Choose a causal language model whose config.json tells its sizes.",
    )


def _stored_4bit(stored: Any) -> bool:
    return bool(stored and stored.get("load_in_4bit"))
