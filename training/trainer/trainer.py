"""Trainer: trains, asks and exports in the caller's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from ..config.arguments import TrainArguments
from ..config.settings import load_settings
from ..files.paths import without_uri
from ..logs import configure_logging, logger
from ..models.presets import AUTO, classify_model
from ..requests.settings import alias_notes
from ..requests.train import train_spec
from .asking import Asking
from .delivering import Delivering
from .training import Training


class Trainer(Training, Asking, Delivering):
    """Fine-tunes a model in this process, or on a cluster (`on="NAME"`).

    Args:
        model: preset, Hub id, or path of a model folder. Default: from the settings, else by this machine.
        output_dir: the home folder for this trainer's runs. Default: `~/.backpropagate`.
        use_unsloth: True is `engine="unsloth"`, False leaves the engine as it is.
        unsloth_fallback: accepted for programs of earlier versions. Without Unsloth, another engine trains,
            and `result.engine_reason` says why.
        settings: any setting by its flat name, e.g. `lora_r=8, learning_rate=1e-4, report_to="none"`.

    Raises:
        InputError: a setting is unknown or out of bounds, or the model name is not valid.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        output_dir: str | Path | None = None,
        use_unsloth: bool | None = None,
        unsloth_fallback: bool = True,
        **settings: Unpack[TrainArguments],
    ) -> None:
        defaults = load_settings()
        configure_logging(defaults, own_process=False)
        arguments: dict[str, Any] = {**settings, "model": without_uri(model or defaults.model.name)}
        if use_unsloth is not None:
            arguments["use_unsloth"] = use_unsloth
        if arguments["model"] != AUTO:
            classify_model(arguments["model"])
        # Wrong settings raise here, not at the start of the training.
        train_spec(defaults, arguments={"dataset": "any", **arguments})
        home = Path(output_dir).expanduser().absolute() if output_dir else defaults.home
        super().__init__(defaults, arguments, home)
        for note in alias_notes(arguments):
            logger().warning(note)
        if not unsloth_fallback:
            logger().warning("unsloth_fallback=False is not used: without Unsloth, another engine trains.")
