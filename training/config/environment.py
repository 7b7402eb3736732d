"""Names of environment variables: those of settings, those of earlier versions, and all others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..errors import InvalidSettingError
from ..nearest_name import nearest
from ..untrusted import quoted
from .arguments import ALIASES, Alias, flat_fields

ENV_PREFIX = "BACKPROPAGATE_"

EARLIER_NAMES = {
    "DATA__DATASET_NAME": Alias("DATA__SOURCE"),
    "DATA__DATASET_SPLIT": Alias("DATA__SPLIT"),
    "DATA__MAX_SAMPLES": Alias("DATA__SAMPLES", {"0": None}),
    "DATA__SHUFFLE": Alias("DATA__ORDER", {"true": "shuffled", "false": "as_given"}),
    "LORA__USE_GRADIENT_CHECKPOINTING": Alias(
        "TRAINING__RECOMPUTE", {"unsloth": None, "true": "everything", "false": "nothing"}
    ),
    "MODEL__MAX_SEQ_LENGTH": Alias("DATA__MAX_SEQ_LENGTH"),
    "TRAINING__FP8": Alias("TRAINING__BASE_PRECISION", {"true": "fp8", "false": None}),
    "TRAINING__MAX_STEPS": Alias("TRAINING__STEPS", {"0": None, "-1": None}),
    "UI__MAX_UPLOAD_SIZE_MB": Alias("UI__UPLOAD_MIB"),
}
"""Names of earlier versions that are settings of another group, or had other values."""

RETIRED = {
    "optional packages are looked for when they are needed": "DEFER_FEATURE_DETECTION DEFER_FEATURE_QUIET",
    "Windows needs no settings of its own": "WINDOWS__DATALOADER_NUM_WORKERS "
    "WINDOWS__TOKENIZERS_PARALLELISM WINDOWS__XFORMERS_DISABLED WINDOWS__CUDA_LAUNCH_BLOCKING "
    "WINDOWS__PRE_TOKENIZE",
    "the precision follows the hardware": "MODEL__DTYPE TRAINING__BF16 TRAINING__FP16",
    "code of a model folder is never run": "MODEL__TRUST_REMOTE_CODE",
    "the optimizer is AdamW": "TRAINING__OPTIM",
    "every step is recorded": "TRAINING__LOGGING_STEPS",
    "each run has a folder in the home": "TRAINING__OUTPUT_DIR TRAINING__OVERWRITE_OUTPUT_DIR",
    "one seed is for everything, TRAINING__SEED": "LORA__RANDOM_STATE",
    "the training is supervised fine-tuning": "TRAINING__METHOD TRAINING__ORPO_BETA TRAINING__SIMPO_BETA "
    "TRAINING__SIMPO_GAMMA TRAINING__KTO_BETA TRAINING__KTO_DESIRABLE_WEIGHT "
    "TRAINING__KTO_UNDESIRABLE_WEIGHT",
    "LoRA is initialised as in its paper": "LORA__USE_DORA LORA__INIT_LORA_WEIGHTS",
    "TRAINING__ENGINE and TRAINING__DEVICE say where to train": "TRAINING__BACKEND UNSLOTH_AUTO_INSTALL",
    "the format of each row is recognised": "DATA__TEXT_COLUMN DATA__CHAT_FORMAT DATA__REASONING_TRACE "
    "DATA__MIN_TRACE_TOKENS DATA__MAX_TRACE_TOKENS",
    "rows are tokenised before the training, and packed without padding": "DATA__PACKING DATA__PRE_TOKENIZE",
    "it is given with each multi-run": "MULTI_RUN__NUM_RUNS MULTI_RUN__STEPS_PER_RUN "
    "MULTI_RUN__SAMPLES_PER_RUN MULTI_RUN__CONTINUE_FROM_PREVIOUS MULTI_RUN__SAVE_INTERMEDIATE "
    "MULTIRUN__NUM_RUNS MULTIRUN__STEPS_PER_RUN MULTIRUN__SAMPLES_PER_RUN "
    "MULTIRUN__CONTINUE_FROM_PREVIOUS MULTIRUN__SAVE_INTERMEDIATE",
    "llama.cpp comes with the extra `export`": "LLAMA_CPP_PATH",
    "memory is planned and measured by each run": "VRAM_CALIBRATION OFFLOAD_PIN OFFLOAD_ROUNDING",
    "no dataset can run code": "ALLOW_CODE_EVAL",
    "the web page is given this when it is started": "UI__PORT UI__HOST UI__SHARE UI__AUTO_OPEN UI_AUTH "
    "UI_AUTH_MODE UI_AUTH_USER UI_AUTH_VERIFIER UI_PORT UI_HOST_BIND UI_SHARE_HOST UI_QUIET UI_WORKDIR "
    "UI_PAYLOAD_DIR UI_LAUNCH_TOKEN UI_REQUEST_LOG CLOUDFLARED_TIMEOUT SECURITY__AUTH_USERNAME "
    "SECURITY__AUTH_PASSWORD SECURITY__REQUIRE_AUTH",
    "the web page and the server always protect themselves": "UI_CORS_EXTRA_ORIGINS "
    "UI_CSP_REPORT_ONLY UI_RATE_LIMIT_HTTP_PER_MIN UI_RATE_LIMIT_UPLOAD_PER_MIN UI_RATE_LIMIT_WS_PER_MIN "
    "SECURITY__ALLOWED_PATHS SECURITY__BLOCK_PATH_TRAVERSAL SECURITY__SESSION_TIMEOUT_MINUTES "
    "SECURITY__JWT_SECRET SECURITY__JWT_ALGORITHM SECURITY__ENABLE_CSRF SECURITY__CSRF_TOKEN_EXPIRY_MINUTES "
    "SECURITY__RATE_LIMIT_TRAINING SECURITY__RATE_LIMIT_EXPORT SECURITY__AUDIT_LOG_ENABLED "
    "SECURITY__AUDIT_LOG_FILE SECURITY__ENABLE_CSP SECURITY__CSP_REPORT_ONLY SECURITY__LOG_FORMAT_JSON "
    "SECURITY__MAX_UPLOAD_SIZE_MB SECURITY__TRAINING_RATE_LIMIT SECURITY__VALIDATE_FILE_MAGIC",
    "an unexpected error is shown in full on request": "DEBUG",
    "nothing depends on it": "VERSION NAME QUIET_TOKEN_HINT",
}
"""Why a name of an earlier version is ignored → these names."""


def earlier_name(name: str) -> Alias | None:
    """What a name of an earlier version or of another tool stands for; both without the prefix.

    >>> earlier_name("TRAINING__NUM_TRAIN_EPOCHS").name
    'TRAINING__EPOCHS'
    """
    if name in EARLIER_NAMES:
        return EARLIER_NAMES[name]
    given_group, _, given = name.lower().partition("__")
    fields = flat_fields()
    alias = ALIASES.get(given) or (Alias(given) if given in fields else None)
    if alias is None:
        return None
    group, field, _ = fields[alias.name]
    return Alias(f"{group}__{field}".upper(), alias.values) if group == given_group else None


def notes_on_names(variables: Collection[str], place: str, known: Collection[str]) -> list[str]:
    """A sentence for each variable with our prefix that is no setting.

    Args:
        place: where the variables are, for the error.
        known: the variables of all settings.

    Raises:
        InvalidSettingError: a name is probably a typing error.
    """
    upper = {name.upper(): name for name in variables}
    return [
        _note(name.removeprefix(ENV_PREFIX), upper[name], place, upper, known)
        for name in sorted(upper)
        if name.startswith(ENV_PREFIX) and name not in known
    ]


def _note(name: str, given: str, place: str, variables: Collection[str], known: Collection[str]) -> str:
    alias = earlier_name(name)
    if alias is not None:
        target = f"{ENV_PREFIX}{alias.name}"
        if target in variables:
            return f"{ENV_PREFIX}{name} is ignored: {target} is the same setting, and is set too."
        return f"{ENV_PREFIX}{name} is called {target} here."
    for reason, names in RETIRED.items():
        if name in names.split():
            return f"{ENV_PREFIX}{name} is ignored: {reason}."
    close = nearest(name, [each.removeprefix(ENV_PREFIX) for each in known])
    if close is not None:
        raise InvalidSettingError(
            f"{quoted(given)} in {place} is not a setting.",
            hint=f"Did you mean {ENV_PREFIX}{close}?",
        )
    return f"{quoted(given)} in {place} is ignored: there is no such setting."


def own_names(variables: Mapping[str, str | None], known: Collection[str]) -> dict[str, str | None]:
    """The variables of settings, in lower case: earlier names replaced, and ignored ones left out."""
    upper = {name.upper(): value for name, value in variables.items()}
    own = {name: value for name, value in upper.items() if name in known}
    for name, value in upper.items():
        alias = earlier_name(name.removeprefix(ENV_PREFIX)) if name.startswith(ENV_PREFIX) else None
        if alias is not None and name not in known and value is not None:
            own.setdefault(f"{ENV_PREFIX}{alias.name}", alias.value(value))
    return {name.lower(): value for name, value in own.items() if value is not None}
