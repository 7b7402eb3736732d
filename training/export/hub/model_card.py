"""README.md of an adapter or a merged model: the Hub's metadata block, and facts for readers.

All facts come from the run folder. Paths are private: of the base's folder only the name is shown, of a
local dataset only the hash of its content.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePath
from typing import Any

from ...config.results import Answer, FindingRecord, MultiRunResult, TrainingResult
from ...data.findings import meaning_of, rows_of
from ...files.atomic_json import read_json
from ...models.model_folder import FolderForm
from ...models.presets import is_hub_id
from ...redact import scrub
from ...untrusted import one_line, short_name
from .own_card import marked
from .run_facts import RunFacts

RELATION = {"adapter": "adapter", "merged": "finetune"}
"""What the Hub calls the model's relation to its base; "merge" there means several models in one."""

QUESTIONS_SHOWN = 10
TEXT_LENGTH = 300  # characters of a question or an answer
FEW_ROWS = 1000
UNKNOWN = "unknown base"
METADATA = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
LINK = re.compile(r"[!-~]{1,300}")
PLAIN_NAME = re.compile(r"[\w.-]+")
MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$-])")


def run_card(facts: RunFacts, form: FolderForm, *, chat: bool = True) -> str:
    """The card of what a run trained.

    Args:
        chat: whether the tokenizer has a chat template, which the code to use it then goes through.
    """
    parts = [_head(facts.base, form), _data(facts), _settings(facts), _verdict(facts), _limits(facts)]
    licence = _licence(facts.base_folder)
    more = {**licence, "datasets": _datasets(facts)}
    return _card(facts.base, form, chat, parts, more, auto_class(facts.base_folder))


def bare_card(base: str | None, form: FolderForm, *, chat: bool = True) -> str:
    """The card of a folder of which no run is known, and perhaps no base; `chat` as in `run_card`."""
    unknown = "Its training, data and quality are not recorded."
    return _card(base or UNKNOWN, form, chat, [_head(base or UNKNOWN, form), unknown], {})


def is_local(base: str) -> bool:
    """Whether a base model is a folder of somebody's machine, not a name on the Hub."""
    return base == UNKNOWN or PurePath(base).is_absolute() or base.startswith(("~", ".")) or "\\" in base


def shown_base(base: str) -> str:
    """The base model's name, without the path to it."""
    return re.split(r"[\\/]", base.rstrip("\\/"))[-1] if is_local(base) else base


def _as_name(base: str) -> str:
    """The base's name in Markdown; a name of the Hub, or a plain one, as it is."""
    name = shown_base(base)
    return name if is_hub_id(name) or PLAIN_NAME.fullmatch(name) else _escaped(short_name(name))


def without_local_base(card: str) -> str:
    """A card of another program, without metadata of a base that is a folder: the Hub takes names only."""
    from huggingface_hub import ModelCard

    try:
        data: Any = ModelCard(card, ignore_metadata_errors=True).data
    except Exception:  # YAML that others wrote
        return card
    given = data.to_dict()
    kept = {name: shown for name, value in given.items() if (shown := _without_local(name, value))}
    if kept == {name: value for name, value in given.items() if value}:
        return card
    import yaml

    text = METADATA.sub("", card.replace("\r\n", "\n"), count=1)
    return f"---\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}---\n{text}"


def _without_local(name: str, value: Any) -> Any:
    """A field of a card's metadata; None or empty where it names a folder."""
    if isinstance(value, list):
        return [item for item in value if _without_local(name, item)]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, str) or name not in {"base_model", "tags", "datasets"}:
        return value
    return None if is_local(value.rpartition(":")[2] if name == "tags" else value) else value


def _card(
    base: str,
    form: FolderForm,
    chat: bool,
    parts: list[str],
    more: dict[str, Any],
    auto: str = "AutoModelForCausalLM",
) -> str:
    block = _metadata(base, form, more)
    return marked(scrub("\n\n".join([f"---\n{block}\n---", *parts, _use(base, form, chat, auto)])))


def auto_class(base_folder: Path | None) -> str:
    """The class of transformers that loads a base with the names that an adapter has."""
    try:
        config = read_json(base_folder / "config.json") if base_folder else {}
    except (OSError, ValueError, RecursionError):
        config = {}
    architecture = str((config.get("architectures") or [""])[0])
    multimodal = architecture.endswith("ForConditionalGeneration")
    return "AutoModelForImageTextToText" if multimodal else "AutoModelForCausalLM"


def _metadata(base: str, form: FolderForm, more: dict[str, Any]) -> str:
    """The block that the Hub reads."""
    from huggingface_hub import ModelCardData

    known = {} if not is_hub_id(base) else {"base_model": base, "base_model_relation": RELATION[form]}
    library: Any = ModelCardData  # its further fields are untyped
    card = library(
        **known,
        **more,
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["backpropagate", "lora"],
    )
    return card.to_yaml()


def _licence(base_folder: Path | None) -> dict[str, str]:
    """The licence in the base's own card; nothing is guessed."""
    from huggingface_hub import ModelCard

    card = base_folder / "README.md" if base_folder else None
    if card is None or not card.is_file():
        return {}
    try:
        metadata: dict[str, Any] = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # YAML that others wrote; an unreadable card has no licence
        return {}
    known = {name: str(metadata[name]) for name in ("license", "license_name") if metadata.get(name)}
    link = metadata.get("license_link")
    shown = {name: short_name(value) for name, value in known.items()}
    return shown | ({"license_link": link} if isinstance(link, str) and LINK.fullmatch(link) else {})


def _datasets(facts: RunFacts) -> list[str] | None:
    return [facts.hub_dataset] if facts.hub_dataset else None


# --- What a reader should know. ---
def _head(base: str, form: FolderForm) -> str:
    name = _as_name(base)
    if form == "adapter":
        title, is_what = f"LoRA adapter for {name}", f"A LoRA adapter for {_linked(base)}"
    elif base == UNKNOWN:
        title, is_what = "Language model", "A causal language model; its base model is not known"
    else:
        title, is_what = f"{name}, fine-tuned", f"{_linked(base)} with a LoRA adapter merged into its weights"
    return f"# {title}\n\n{is_what}."


def _linked(base: str) -> str:
    if base == UNKNOWN:
        return "a base model that is not known"
    if not is_hub_id(base):
        return f"{_as_name(base)} (a local model, not on the Hub)"
    return f"[{base}](https://huggingface.co/{base})"


def _data(facts: RunFacts) -> str:
    result = facts.result
    name = facts.hub_dataset
    dataset = f"[{name}](https://huggingface.co/datasets/{name})" if name else "local, not published"
    content = facts.provenance.content_hash
    lines = [f"Dataset: {dataset}", f"Content: sha256 `{content}`" if content else None]
    if result.rows:
        lines += [
            f"Rows: {result.rows}, of which {result.rows_used} used "
            f"and {result.held_out} of those held out for evaluation",
            _left_out(result.rows_left_out),
            f"Cut to {facts.spec.data.max_seq_length} tokens: {rows_of(result.rows_truncated)}",
            f"Loss on {result.trained_token_share:.0%} of the tokens ({_trained_on(facts)})",
        ]
    return _section("Training data", lines)


def _left_out(reasons: list[FindingRecord]) -> str:
    parts = [f"{reason.count} that {meaning_of(reason.kind, reason.count)}" for reason in reasons]
    return f"Left out: {'; '.join(parts) or 'none'}"


def _trained_on(facts: RunFacts) -> str:
    parts = {"assistant": "the assistant's turns", "last": "the last answer", "all": "all of the text"}
    return parts[facts.spec.data.train_on]


def _settings(facts: RunFacts) -> str:
    plan, lora, versions = facts.plan, facts.plan.lora, facts.provenance.libraries
    targets, total = lora.target_modules, facts.result.total_steps or plan.steps
    rows = {
        "LoRA rank, alpha, dropout": f"{lora.r}, {lora.alpha}, {lora.dropout:g}"
        + (" (rank-stabilised)" if lora.rslora else ""),
        "modules": targets if isinstance(targets, str) else ", ".join(targets),
        "learning rate": f"{plan.learning_rate:g}, {plan.lr_scheduler}",
        "steps": f"{facts.result.steps} of {total}",
        **({"continued from": f"the adapter of run {facts.parent}"} if facts.parent else {}),
        "batch": f"{plan.batch_size} examples x {plan.gradient_accumulation_steps}",
        "longest example": f"{plan.max_seq_length} tokens",
        **({"base revision": _escaped(short_name(commit))} if (commit := facts.provenance.revision) else {}),
        **({"base weights": f"sha256 {weights}"} if (weights := facts.provenance.weights_hash) else {}),
        "base held in": plan.reduced_base or plan.precision,
        "engine": f"{plan.engine}, on {plan.device}",
        "seed": str(plan.seed),
        "versions": ", ".join(
            [f"backpropagate {facts.provenance.backpropagate}"]
            + [f"{name} {versions[name]}" for name in ("torch", "transformers", "peft") if name in versions]
        ),
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["## Settings", "", "| setting | value |", "|---|---|", *table])


def _verdict(facts: RunFacts) -> str:
    result = facts.result
    return "\n\n".join(
        [
            _section(
                "Results",
                [
                    f"Training loss: {_from_to(result.first_loss, result.final_loss)}",
                    f"Loss on the {result.held_out} held-out rows: {_held_out_loss(result)}",
                ],
            ),
            *([f"**{result.judgement}**"] if result.judgement else []),
            *_runs(result),
            *_answers(result.answers),
        ]
    )


def _runs(result: TrainingResult) -> list[str]:
    """Of a multi-run, how well each task is remembered."""
    if not isinstance(result, MultiRunResult):
        return []
    ledger = result.ledger
    lines: list[str | None] = [f"Trained in {len(ledger.kept)} runs, merged by `{ledger.merge_mode}`."]
    for index, (task, run) in enumerate(zip(ledger.tasks, ledger.kept, strict=False)):
        after, now = -run.scores[index], -ledger.kept[-1].scores[index]
        rows = f"{task.scored_rows} {'held-out' if task.scored_on == 'held_out' else 'training'} rows"
        name = _escaped(short_name(task.name))
        shares = " → ".join(f"{share:.0%}" for share in ledger.accuracies_of(index))
        right = f"; answers right {shares} of {task.answered_rows}" if shares else ""
        lines.append(f"{name}: loss {-task.base_score:.4f} → {after:.4f} → {now:.4f} on {rows}{right}")
    why = "Each task: the base model, after the task's own run, and this adapter. Losses are means."
    return [_section("What it remembers", lines), why]


def _held_out_loss(result: TrainingResult) -> str:
    return _from_to(result.eval_loss_before, result.eval_loss)


def _from_to(before: float | None, after: float | None) -> str:
    if after is None:
        return "not measured"
    return f"{before:.4f} → {after:.4f}" if before is not None else f"{after:.4f}"


def _answers(answers: list[Answer]) -> list[str]:
    """Questions with both answers. They are a model's text: shown as text, never as Markdown."""
    if not answers:
        return []
    shown = [
        f"> **Question:** {_as_text(answer.question)}\n>\n> before: {_as_text(answer.before)}\n>\n"
        f"> after: {_as_text(answer.after)}"
        for answer in answers[:QUESTIONS_SHOWN]
    ]
    more = len(answers) - len(shown)
    return ["Questions asked before and after:", *shown, *([f"… and {more} more."] if more else [])]


def _as_text(text: str | None) -> str:
    return _escaped(one_line(scrub(text or "(no answer)"), TEXT_LENGTH))


def _escaped(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", text)


def _limits(facts: RunFacts) -> str:
    result = facts.result
    used = result.rows_used - result.held_out
    few = f"It was trained on only {used} rows: expect it to repeat their wording."
    unfinished = f"The training was {result.outcome} before its planned end."
    base = facts.plan.reduced_base
    quantised = f"It was trained on the base in {base}; on the unquantised base its answers differ slightly."
    return _section(
        "Limits",
        [
            few if used < FEW_ROWS else None,
            None if result.held_out else "No rows were held out: the loss on unseen data is not known.",
            unfinished if result.outcome == "cancelled" else None,
            quantised if base else None,
            "Fine-tuning can reduce abilities of the base model; this was not measured.",
            "No benchmark was run, and neither safety nor bias was evaluated.",
        ],
    )


def _section(title: str, lines: list[str | None]) -> str:
    return "\n".join([f"## {title}", "", *(f"- {line}" for line in lines if line)])


# --- How to use it. ---
def _use(base: str, form: FolderForm, chat: bool, auto: str) -> str:
    code = _load_adapter(base, auto) if form == "adapter" else LOAD_MERGED
    return f"## Use\n\n```python\n{code}\n\n{ASK if chat else CONTINUE}\n{ANSWER}\n```"


def _load_adapter(base: str, auto: str) -> str:
    local = short_name(shown_base(base)).replace("`", "")  # a backtick could end the block of code
    place = base if is_hub_id(base) else f"path/to/{local}"
    return f"""\
from peft import PeftModel
from transformers import {auto}, AutoTokenizer

folder = "."  # where these files are, or the name of this repository
model = PeftModel.from_pretrained({auto}.from_pretrained({json.dumps(place)}), folder)
tokenizer = AutoTokenizer.from_pretrained(folder)"""


LOAD_MERGED = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where these files are, or the name of this repository
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)"""

ASK = """\
messages = [{"role": "user", "content": "Hello!"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)"""

CONTINUE = """inputs = tokenizer("Once upon a time", return_tensors="pt")"""

ANSWER = """\
output = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
