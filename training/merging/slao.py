"""SLAO: one LoRA for a sequence of tasks, merged after each (Qiao and Mahdavi 2025, arXiv:2512.23017).

The state does not grow with the number of tasks. It has two adapters: the merged one, which is evaluated and
delivered, and the last fine-tuned one, from which the next task starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import SLAOCheckpointError, SLAOError, SLAOMergeError
from ..untrusted import shown_path
from .algebra import (
    Mode,
    Scaling,
    average_lora_weights,
    merge_lora_weights,
    orthogonal_init_A,
    time_aware_scale,
)
from .lora_pairs import form_of, pairs_of, require_finite, require_same_config, require_same_form
from .merger_files import read_merger, write_merger

Weights = dict[str, Tensor]
"""PEFT's names, e.g. `….q_proj.lora_A.weight`, and the matrices: A (r, in_features), B (out_features, r)."""


@dataclass(frozen=True)
class SLAOConfig:
    """Settings of a merger.

    Args:
        scaling: see `time_aware_scale`.
        mode: "slao", or what it is compared with: "simple" continues one adapter, "average" is the mean of
            adapters that were trained independently.
    """

    scaling: Scaling = "sqrt"
    mode: Mode = "slao"


@dataclass(frozen=True)
class MergeResult:
    """One entry of the merger's history.

    Args:
        run_index: i, from 1.
        scale: λ; 1 for the first task.
        modules: number of pairs of A and B.
        parameters: number of their values.
    """

    run_index: int
    scale: float
    modules: int
    parameters: int


@dataclass
class SLAOMerger:
    """Merges the adapters of tasks in the order in which they were trained.

        merger = SLAOMerger()
        merger.initialize(weights_of_task_1)
        start = merger.get_init_weights()      # task 2 is trained from here
        merger.merge(weights_of_task_2)
        merger.get_merged_lora()               # to evaluate and to deliver

    The merger keeps copies: weights that are given or returned can be changed.
    """

    config: SLAOConfig = field(default_factory=SLAOConfig)
    merge_history: list[MergeResult] = field(default_factory=list[MergeResult])
    _merged: Weights = field(default_factory=Weights, repr=False)
    _tuned: Weights = field(default_factory=Weights, repr=False)
    _form: dict[str, object] = field(default_factory=dict[str, object], repr=False)

    @property
    def run_index(self) -> int:
        """Number of tasks so far; 0 before `initialize`."""
        return self.merge_history[-1].run_index if self.merge_history else 0

    def initialize(
        self, weights: Mapping[str, Tensor], adapter_config: Mapping[str, object] | None = None
    ) -> MergeResult:
        """Take over the adapter of the first task.

        Args:
            adapter_config: of PEFT. Later adapters must then have the same rank, alpha, modules and base.

        Raises:
            SLAOError: the merger has a task already.
            SLAOMergeError: the weights are no plain LoRA, or not finite.
        """
        if self.run_index:
            raise SLAOError(
                f"The merger has {self.run_index} tasks already.", hint="Use merge, or a new merger."
            )
        pairs_of(weights)
        require_finite(weights)
        self._form = form_of(adapter_config or {})
        self._tuned = self._merged = _copied(weights)
        return self._note(1.0)

    def get_init_weights(self) -> Weights:
        """The weights from which the next task starts: A orthogonal, B the last fine-tuned one.

        Raises:
            SLAOError: there is no task yet, A has more rows than columns, or the mode is "average", whose
                tasks all start anew.
        """
        self._require_task()
        if self.config.mode == "average":
            raise SLAOError("With mode average, each task starts from a new adapter.")
        if self.config.mode == "simple":
            return self.get_tuned_lora()
        # One after the other: so small matrices are not decomposed faster in parallel.
        pairs = pairs_of(self._tuned)
        starts = {pair.a: orthogonal_init_A(self._tuned[pair.a]) for pair in pairs}
        return starts | {pair.b: self._tuned[pair.b].clone() for pair in pairs}

    def merge(
        self,
        weights: Mapping[str, Tensor],
        adapter_config: Mapping[str, object] | None = None,
        *,
        scale: float | None = None,
    ) -> MergeResult:
        """Merge the adapter of the next task.

        Args:
            scale: λ; None: as the configuration says.

        Raises:
            SLAOError: there is no task yet.
            SLAOMergeError: the adapter's form differs, or a value is not finite. The merger is unchanged.
        """
        self._require_task()
        if adapter_config is not None:
            require_same_config(form_of(adapter_config), self._form)
        require_same_form(weights, self._merged)
        require_finite(weights)
        used = self._scale() if scale is None else scale
        tuned = _copied(weights)
        self._merged, self._tuned = self.merged_with(tuned, used), tuned
        return self._note(used)

    def merged_with(self, weights: Mapping[str, Tensor], scale: float) -> Weights:
        """What `merge` would give with this λ; the merger is unchanged.

        Raises:
            SLAOError: there is no task yet.
            SLAOMergeError: the weights are no plain LoRA or differ in form.
        """
        self._require_task()
        combine = average_lora_weights if self.config.mode == "average" else merge_lora_weights
        return combine(self._merged, weights, scale)

    def _scale(self) -> float:
        if self.config.mode == "simple":
            return 1.0
        return time_aware_scale(
            self.run_index + 1, "mean" if self.config.mode == "average" else self.config.scaling
        )

    def get_merged_lora(self) -> Weights:
        """The merged adapter, to evaluate and to deliver.

        Raises:
            SLAOError: there is no task yet.
        """
        self._require_task()
        return _copied(self._merged)

    def get_tuned_lora(self) -> Weights:
        """The adapter of the last task as it was trained.

        Raises:
            SLAOError: there is no task yet.
        """
        self._require_task()
        return _copied(self._tuned)

    def save(self, folder: Path | str) -> None:
        """Write the merger's state, so that `load` continues it: safetensors and one JSON file.

        Of the fine-tuned adapter, only matrices that differ from the merged ones are written: with "slao" its
        B. The folder is written aside and then gets its name; an earlier one of that name is replaced.

        Raises:
            SLAOError: there is no task yet.
            DiskFullError: there is no space.
        """
        self._require_task()
        record = {
            "scaling": self.config.scaling,
            "mode": self.config.mode,
            "form": self._form,
            "history": [asdict(result) for result in self.merge_history],
        }
        own = {name: one for name, one in self._tuned.items() if not torch.equal(one, self._merged[name])}
        write_merger(Path(folder), {"merged": self._merged, "tuned": own}, record)

    @classmethod
    def load(cls, folder: Path | str) -> SLAOMerger:
        """The merger that `save` has written.

        Raises:
            SLAOCheckpointError: a file is missing, damaged, or of another format.
        """
        adapters, record = read_merger(Path(folder), ("merged", "tuned"))
        try:
            history = [MergeResult(**entry) for entry in record["history"]]
            merged = adapters["merged"]
            tuned = {name: tensor.clone() for name, tensor in merged.items()} | adapters["tuned"]
            require_same_form(tuned, merged)
            config = SLAOConfig(record["scaling"], record.get("mode", "slao"))
            return cls(config, history, merged, tuned, dict(record["form"]))
        except (KeyError, TypeError, ValueError, SLAOMergeError) as error:
            raise SLAOCheckpointError(
                f"{shown_path(folder)} holds no merger of this version.",
                hint="Use an earlier checkpoint.",
                untrusted=str(error),
            ) from error

    def _require_task(self) -> None:
        if not self.run_index:
            raise SLAOError("The merger has no task yet.", hint="Call initialize first.")

    def _note(self, scale: float) -> MergeResult:
        parameters = sum(tensor.numel() for tensor in self._tuned.values())
        result = MergeResult(self.run_index + 1, scale, len(self._tuned) // 2, parameters)
        self.merge_history.append(result)
        return result


def _copied(weights: Mapping[str, Tensor]) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}
