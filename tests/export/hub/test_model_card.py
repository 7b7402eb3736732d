"""The card says what is known, in a form that the Hub reads, and tells no path and no secret."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from facts import QUESTION
from huggingface_hub import ModelCard

from backpropagate.training.config.results import Answer, FindingRecord
from backpropagate.training.export.hub.model_card import bare_card, run_card
from backpropagate.training.export.hub.run_facts import RunFacts
from backpropagate.training.runs.folder import RunFolder


@pytest.fixture
def facts(trained: RunFolder) -> RunFacts:
    return RunFacts.of(trained)


def metadata(card: str) -> dict[str, Any]:
    return ModelCard(card).data.to_dict()


def from_the_hub(facts: RunFacts, **data: object) -> RunFacts:
    """The same run, as if its base and its dataset had come from the Hub."""
    spec = facts.spec.model_copy(update={"data": facts.spec.data.model_copy(update=data)})
    return replace(
        facts, spec=spec, plan=facts.plan.model_copy(update={"base_model_name": "Qwen/Qwen2.5-3B-Instruct"})
    )


def test_a_run_leaves_the_whole_card_beside_its_adapter(trained: RunFolder, facts: RunFacts) -> None:
    card = (trained.adapter_path / "README.md").read_text("utf-8")
    assert card == run_card(facts, "adapter")
    assert metadata(card)["library_name"] == "peft"
    content = facts.provenance.content_hash
    for told in (content, "200, of which 200 used and 10 of those held out", "| seed | 42 |", QUESTION[:20]):
        assert told in card
    assert f"{facts.result.first_loss:.4f} → {facts.result.final_loss:.4f}" in card
    assert "4, 32, 0" in card and "0.01, linear" in card and "20 of 20" in card


@pytest.mark.parametrize(
    ("form", "relation", "library"),
    [("adapter", "adapter", "peft"), ("merged", "finetune", "transformers")],
)
def test_the_metadata_names_base_relation_and_library(
    facts: RunFacts, form: Any, relation: str, library: str
) -> None:
    told = metadata(run_card(from_the_hub(facts, source="owner/data:config"), form))
    assert told["base_model"] == "Qwen/Qwen2.5-3B-Instruct"
    assert (told["base_model_relation"], told["library_name"]) == (relation, library)
    assert told["pipeline_tag"] == "text-generation" and "lora" in told["tags"]
    assert told["datasets"] == ["owner/data"]


def test_no_path_of_this_machine_is_told(facts: RunFacts, trained: RunFolder) -> None:
    for form in ("adapter", "merged"):
        card = run_card(facts, form)  # type: ignore[arg-type]
        assert "base_model" not in metadata(card) and "datasets" not in metadata(card)
        assert "secret-project" not in card
        assert str(trained.path.anchor + trained.path.parts[1] + "/") not in card
        assert "tiny-llama (a local model, not on the Hub)" in card
    assert "C:" not in bare_card("C:\\Users\\me\\models\\tiny", "adapter")


def test_the_licence_is_the_bases_own_or_none(facts: RunFacts, tmp_path: Path) -> None:
    assert "license" not in metadata(run_card(facts, "adapter"))
    base = replace(facts, plan=facts.plan.model_copy(update={"model": str(tmp_path)}))
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: qwen-research\n---\n# Base\n")
    told = metadata(run_card(base, "adapter"))
    assert (told["license"], told["license_name"]) == ("other", "qwen-research")
    (tmp_path / "README.md").write_text("---\n: [ not yaml\n---\n")
    assert "license" not in metadata(run_card(base, "adapter"))


def test_rows_that_were_left_out_are_counted_with_their_reasons(facts: RunFacts) -> None:
    left_out = [FindingRecord(kind="parse", count=3, first=["secret-project.jsonl:7"])]
    result = facts.result.model_copy(update={"rows": 203, "rows_left_out": left_out})
    card = run_card(replace(facts, result=result), "adapter")
    assert "203, of which 200 used" in card and "3 that cannot be parsed" in card
    assert "secret-project" not in card


def test_limits_say_what_is_not_known(facts: RunFacts) -> None:
    unmeasured = facts.result.model_copy(update={"held_out": 0, "eval_loss": None, "outcome": "cancelled"})
    card = run_card(replace(facts, result=unmeasured), "adapter")
    for told in (
        "not measured",
        "only 200 rows",
        "No rows were held out",
        "cancelled before its planned end",
    ):
        assert told in card
    many = run_card(replace(facts, result=facts.result.model_copy(update={"rows_used": 50_000})), "adapter")
    assert "trained on only" not in many and "can reduce abilities" in many


@pytest.mark.parametrize(
    ("settings", "told"), [({"load_in_4bit": True}, "4 bits (NF4)"), ({"base_precision": "fp8"}, "FP8")]
)
def test_a_base_of_fewer_bits_is_told_with_its_limit(
    settings: dict[str, Any], told: str, facts: RunFacts
) -> None:
    assert "on the unquantised base" not in run_card(facts, "adapter")
    card = run_card(replace(facts, plan=facts.plan.model_copy(update=settings)), "adapter")
    assert f"| base held in | {told} |" in card
    assert f"It was trained on the base in {told}; on the unquantised base" in card


def test_what_a_model_said_is_shown_as_text_capped_and_without_secrets(facts: RunFacts) -> None:
    said = "<script>alert(1)</script> [click](http://evil) hf_" + "a" * 30 + " \x1b[2J" + "long " * 200
    answers = [Answer(question="q?\n# Heading", after=said)] * 12
    card = run_card(replace(facts, result=facts.result.model_copy(update={"answers": answers})), "adapter")
    assert "<script>" not in card and "[click](" not in card and "\x1b" not in card
    assert "hf_aaaa" not in card and "[hidden]" in card.replace("\\", "")
    assert "\n# Heading" not in card and "… and 2 more." in card
    assert all(len(line) < 1200 for line in card.splitlines())


@pytest.mark.parametrize("chat", [True, False])
def test_the_code_in_the_card_runs(
    facts: RunFacts,
    trained: RunFolder,
    tiny_model: Path,
    chat: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(trained.adapter_path)
    card = run_card(facts, "adapter", chat=chat)
    code = card.split("```python\n")[1].split("```")[0]
    exec(compile(code.replace("path/to/tiny-llama", str(tiny_model)), "README.md", "exec"), {})
    assert capsys.readouterr().out
    assert run_card(facts, "merged", chat=chat).split("```python\n")[1].startswith("from transformers")


def test_a_folder_without_a_run_gets_a_card_that_claims_nothing() -> None:
    card = bare_card("Qwen/Qwen2.5-3B-Instruct", "adapter")
    assert metadata(card)["base_model"] == "Qwen/Qwen2.5-3B-Instruct"
    assert "are not recorded" in card and "loss" not in card
    for form in ("adapter", "merged"):
        unknown = bare_card(None, form)  # type: ignore[arg-type]
        assert "base_model" not in metadata(unknown) and "not known" in unknown
