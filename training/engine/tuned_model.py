"""A model with its adapter as transformers and PEFT load them, to be asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from ..config.results import Reply
from ..config.specs import LoraGroup
from ..data.chat_template.sandbox import template_errors
from ..data.tokens.example import Example
from ..errors import BackpropagateError, GpuOutOfMemoryError, InputError
from ..events import ShouldStop
from ..files.atomic_json import read_json
from ..models.plain_lora import unknown_to_us
from ..models.quiet_loading import quiet_loading
from ..models.token_limits import token_limits
from ..models.tokenizer import load_tokenizer
from ..next_step import Next
from ..planning.decoder_shape import folder_shape
from ..planning.memory_choice import resident_for_answers
from ..untrusted import quoted, shown_path
from .autograd.base_model import load_frozen
from .autograd.label_losses import LabelLosses
from .device import free_gpu_bytes, torch_device
from .generate import Prompt, Sampling, encoded, replies
from .loop.example_losses import ExampleLoss, TokenBudget, example_losses
from .out_of_memory import empty_cache, first_line, ran_out_of_memory, with_neighbours
from .packed.decoder import PackedDecoder
from .packed.nf4_checkpoint import is_in_4bit
from .packed.open_decoder import load_decoder
from .packed.peft_view import base_view
from .peft_adapter import CONFIG, WEIGHTS
from .plain_peft import left_out
from .plan import Precision
from .select_engine import select_engine

MEASURED_TOKENS = 2048
"""Tokens that go through the model at once; a longer example goes alone."""


@dataclass(frozen=True)
class TunedModel:
    """A model in memory.

    Args:
        base: folder of the model, or of the base.
        model: of transformers, or of PEFT around it.
        has_adapter: whether it can answer with and without one.
        positions: tokens of the longest sequence for which it was made; None if it does not say.
    """

    base: Path
    model: Any
    tokenizer: Any
    has_adapter: bool
    positions: int | None

    @property
    def device(self) -> str:
        return self.model.device.type

    def encoded(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The input ids of each prompt.

        Raises:
            InputError: the chat template refuses it, or it is longer than the model's context.
        """
        return [self._encoded(prompt, f"prompts[{place}]") for place, prompt in enumerate(prompts)]

    def _encoded(self, prompt: Prompt, place: str) -> list[int]:
        try:
            ids = encoded(self.tokenizer, prompt)
        except template_errors() as error:
            raise InputError(
                f"{place}: the model's chat template refuses it ({type(error).__name__}).",
                hint="Some templates take no system message: leave it out.",
                untrusted=str(error),
                cause=error,
            ) from error
        if not ids or (self.positions and len(ids) >= self.positions):
            limit = f"the model has a context of {self.positions}" if ids else "the model needs at least one"
            raise InputError(f"{place} has {len(ids)} tokens; {limit}.", hint="Change the prompt.")
        return ids

    def room(self, rows: Sequence[Sequence[int]], wanted: int) -> int:
        """Tokens that each answer may have: as wanted, or what the context has room for."""
        longest = max(map(len, rows))
        return wanted if self.positions is None else min(wanted, self.positions - longest)

    def losses(self, examples: Sequence[Example], *, adapter: bool) -> list[ExampleLoss]:
        """The loss of each example; `adapter` as for `replies`."""
        with self._chosen(adapter):
            return example_losses(self._measured, examples, self._measured_at_once)

    @cached_property
    def _measured_at_once(self) -> TokenBudget:
        return TokenBudget(MEASURED_TOKENS)

    @cached_property
    def _measured(self) -> LabelLosses:
        base = self.model.get_base_model() if self.has_adapter else self.model
        return LabelLosses(self.model, base, self.model.device)

    def _chosen(self, adapter: bool) -> AbstractContextManager[None]:
        return self.model.disable_adapter() if self.has_adapter and not adapter else nullcontext()

    def replies(
        self,
        rows: Sequence[Sequence[int]],
        sampling: Sampling,
        on_tokens: Callable[[int, int], None],
        should_stop: ShouldStop,
        *,
        adapter: bool,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Reply]:
        """The reply to each row of input ids; fewer if asked to stop.

        Args:
            adapter: False gives the base model's.
            on_text: see `generate.replies`.
        """
        with self._chosen(adapter):
            return replies(self.model, self.tokenizer, rows, sampling, on_tokens, should_stop, on_text)


@quiet_loading()
def load_tuned_model(base: Path, adapter: Path | None, *, load_in_4bit: bool = False) -> TunedModel:
    """Load a base once, with the adapter of a folder on it; in bf16 on a GPU, in fp32 on the CPU.

    Raises:
        ModelLoadError: the model cannot be loaded.
        InputError: the adapter is not one that PEFT computes as its files say.
    """
    tokenizer = tokenizer_of(base, adapter)
    if adapter is not None:
        _require_known(adapter)
    device = torch_device()
    precision: Precision = "bfloat16" if device == "cuda" else "float32"
    model = _base(base, device, precision, load_in_4bit=load_in_4bit)
    if adapter is not None:
        model = _with_adapter(model, adapter, device)
    model.eval()
    return TunedModel(base, model, tokenizer, adapter is not None, token_limits(base).positions)


def _base(folder: Path, device: str, precision: Precision, *, load_in_4bit: bool) -> Any:
    """The base, in 4 bits from our own decoder where that has the family: it needs no bitsandbytes."""
    no_lora = LoraGroup(r=1, target_modules=[])
    in_4bit = load_in_4bit or is_in_4bit(folder)
    if in_4bit and select_engine(folder, no_lora, load_in_4bit=True, max_seq_length=0)[0] == "packed":
        resident = resident_for_answers(folder_shape(folder), in_4bit=load_in_4bit, free=free_gpu_bytes())

        def decoder(resident: int | None) -> PackedDecoder:
            return load_decoder(
                folder, no_lora, precision, device, in_4bit=load_in_4bit, resident_layers=resident
            )

        return base_view(_in_memory(decoder, resident, device), folder)
    return load_frozen(folder, device, precision, load_in_4bit=load_in_4bit)


def _in_memory(
    load: Callable[[int | None], PackedDecoder], resident: int | None, device: str
) -> PackedDecoder:
    """The decoder; with all its layers in host memory if that of the GPU does not suffice."""
    try:
        return load(resident)
    except (RuntimeError, MemoryError) as error:
        if resident == 0 or device != "cuda" or not ran_out_of_memory(error):
            raise
    empty_cache(device)
    return load(0)


def tokenizer_of(base: Path, adapter: Path | None) -> Any:
    """The tokenizer that an adapter was trained with, if its folder has it, or else its base's.

    Raises:
        ModelLoadError: it cannot be loaded.
    """
    trained_with = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    return load_tokenizer(adapter if adapter is not None and trained_with else base)


@contextmanager
def memory_errors(doing: str, less: Next | None) -> Generator[None]:
    """Raise a lack of memory as GpuOutOfMemoryError with the request that needs less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, BackpropagateError) or not ran_out_of_memory(error):
            raise
        hint = None if less else "Free memory on the device, or ask a smaller model."
        raise GpuOutOfMemoryError(
            with_neighbours(f"Memory ran out while {doing} on the {torch_device()}.", torch_device()),
            hint=hint,
            next=less,
            untrusted=first_line(error),
        ) from error


def _require_known(adapter: Path) -> None:
    """Raises InputError unless it is a LoRA adapter in safetensors all of whose entries are known."""
    try:
        config = read_json(adapter / CONFIG)
        kind = config.get("peft_type")
        (adapter / WEIGHTS).stat()
    except (OSError, ValueError, AttributeError) as error:
        raise _unusable(adapter, type(error).__name__, str(error)) from error
    unknown = unknown_to_us(config)
    if kind != "LORA" or unknown:
        raise _unusable(adapter, unknown or f"it is of the type {quoted(kind)}")


def _with_adapter(model: Any, adapter: Path, device: str) -> Any:
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT only warns of is compared afterwards
            adapted = cast("Any", PeftModel).from_pretrained(
                model, str(adapter), torch_device=device, local_files_only=True
            )
    except Exception as error:  # PEFT raises what its parsers and torch raise
        if ran_out_of_memory(error):
            raise
        raise _unusable(adapter, type(error).__name__, str(error)) from error
    different = left_out(adapted, adapter)
    if different:
        raise _unusable(adapter, different)
    return adapted


def _unusable(adapter: Path, reason: str, said: str | None = None) -> InputError:
    return InputError(
        f"The adapter in {shown_path(adapter)} cannot be used with this base model: {reason}.",
        hint="Give the folder of a finished LoRA adapter, with the base model that it was trained on.",
        untrusted=said,
    )
