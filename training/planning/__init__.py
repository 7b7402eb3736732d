"""What a training needs and how long it takes, known from config.json and without torch.

    decoder_shape     the sizes of a model, from its config.json
    known_shapes      those of the presets, and of the sizes that people compare
    model_facts       where the sizes come from: a folder, the cache, the Hub, or what is known
    data_facts        how long the examples are, from an inspection of the dataset
    step_order        which examples make up each step, and how steps are split
    batches           the largest micro-batch of a run
    graphs            for which models steps become CUDA graphs
    memory            bytes by part: weights, LoRA, optimizer, activations, head
    memory_choice     what of it lies on the GPU, so that it fits
    engine_choice     which of our two steps trains a model
    expert_targets    what of a model with experts is trained
    unpacked_layers   what the packed step does not have of a type
    hyperparameters   learning rate and epochs, where none are given
    machine           the GPU or the CPU that a run would get, and what is free
    choices           every "auto" of a spec, with reasons
    gpu_cards         what the makers' data sheets say of a card
    speed             seconds of a micro-batch
    measured          what earlier runs on this machine have shown
    duration          seconds of a whole run
    disk              what is written
    fits              whether a training fits at all, and what else would
    fits_here         which of the known models fit this machine
    plan_training     all of it: the plan of a training before it is started

The worker's planner (`engine/planner.py`) makes its choices with the same functions, from exact lengths.
"""
