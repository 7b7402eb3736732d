"""What a program of version 1 imports: errors under their names here, and what took the place of the rest."""

from __future__ import annotations

ERRORS = {
    "ConfigurationError": "ConfigError",
    "GGUFExportError": "GgufExportError",
    "GPUError": "GpuError",
    "GPUMemoryError": "GpuOutOfMemoryError",
    "GPUMonitoringError": "GpuMonitoringError",
    "GPUNotAvailableError": "GpuNotAvailableError",
    "GPUTemperatureError": "GpuTemperatureCriticalError",
    "LoRAExportError": "LoraExportError",
    "OllamaRegistrationError": "OllamaError",
    "PartialSuccess": "PartialSuccessError",
    "PathTraversalError": "PathForbiddenError",
    "UserInputError": "InputError",
}
"""Version 1's name → ours."""

_INSTEAD = {
    "Trainer.multi_run": "MultiRunTrainer MultiRunConfig MergeMode RunResult SpeedrunTrainer SpeedrunConfig "
    "SpeedrunResult",
    "the home's run folders, which TrainingService reads": "CheckpointManager CheckpointPolicy "
    "CheckpointInfo CheckpointStats CheckpointError RunHistoryManager",
    "the temperature guard of every run, and `backprop info`": "GPUMonitor GPUStatus GPUSafetyConfig "
    "GPUCondition check_gpu_safe get_gpu_status wait_for_safe_gpu format_gpu_status get_gpu_info "
    "get_system_info",
    "Trainer.export": "GGUFQuantization ExportFormat export_lora export_merged export_gguf",
    "register_with_ollama, and Ollama's own commands": "create_modelfile list_ollama_models "
    "remove_ollama_model",
    "Trainer.push_to_hub, which writes the model card": "push_to_hub write_model_card generate_model_card",
    "inspect_dataset": "DatasetFormat ValidationResult ValidationError DatasetStats detect_format "
    "validate_dataset preview_samples get_dataset_stats",
    "load_dataset": "DatasetLoader StreamingDatasetLoader",
    "`backprop convert`; the model's template makes the text": "FormatConverter convert_to_chatml",
    'the settings quality="basic", dedupe and order': "FilterStats filter_by_quality deduplicate_exact "
    "deduplicate_minhash CurriculumStats compute_difficulty_score order_by_difficulty "
    "get_curriculum_chunks analyze_curriculum",
    "the verdict on held-out rows": "PerplexityFilter PerplexityStats compute_perplexity "
    "filter_by_perplexity",
    "Settings": "ModelConfig TrainingConfig LoRAConfig DataConfig get_output_dir get_cache_dir "
    "get_training_args",
    "MissingExtraError, which names the extra": "FEATURES FeatureNotAvailable check_feature require_feature "
    "get_install_hint list_available_features list_missing_features INSTALL_HINTS ensure_feature "
    "refresh_features PYDANTIC_SETTINGS_AVAILABLE",
    "`backprop ui`": "safe_gradio_handler",
    "Trainer.evaluate and the verdict of each training": "EvalResult EvalDiff EvalGateDecision evaluate_run "
    "diff_evals eval_gate",
    "inspect_dataset, and `backprop data report`": "DataQualityReport ContaminationResult analyze_dataset",
    "the settings preset and lora_preset; names of models are in docs/models.md": "ModelPreset LoRAPreset "
    "TrainingPreset MODEL_PRESETS LORA_PRESETS MULTI_RUN_PRESETS get_model_preset get_lora_preset get_preset "
    "lookup_model_preset_by_id get_recommended_lr get_recommended_warmup",
    "the settings merge_mode and merge_scale, and SLAOMerger": "adaptive_scale compute_task_similarity "
    "get_layer_scale",
    "checks that every call makes by itself (SECURITY.md)": "SecurityConfig SecurityWarning FileValidator "
    "EnhancedRateLimiter DEFAULT_SECURITY_CONFIG ALLOWED_DATASET_EXTENSIONS DANGEROUS_EXTENSIONS "
    "check_torch_security log_security_event safe_path",
    "the error of each run, and PartialSuccessError": "BatchOperationError",
}
"""What is here → the names of version 1 that it replaces."""


def instead_of(name: str) -> str | None:
    """What took the place of a name of version 1."""
    return next((instead for instead, names in _INSTEAD.items() if name in names.split()), None)
