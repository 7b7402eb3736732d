"""Engines: what turns examples into an adapter. All run(plan, data, report, should_stop, checkpoints).

plan              what an engine is given and gives back
packed_step       our own forward and backward, for Llama-shaped decoders
  read_decoder_config     what a config describes, and why a model cannot be packed
  decoder           the layers: forward, backward, recomputation
  folded_linear     linear layers with their LoRA in the same GEMM
  attention         causal attention within the examples of a row
  pointwise         norms, rotary positions, SwiGLU
  label_loss        head and cross-entropy on label rows
  weights           safetensors straight into the merged buffers
autograd_step     any other causal model, by transformers, PEFT and autograd
  peft_lora         its LoRA in our flat buffer
  huggingface_base  the base and its linear modules
select_engine        which of these two, and why
unsloth           Unsloth's trainer in another environment, and what happens where there is none
  unsloth_process   its job, its process, and the line to it
  unsloth_child     what runs there; imports nothing of ours
trl               TRL's trainer, in its own loop
fit               the loop that our two steps run in
  packing           which examples make up a step, and how it is split
  packed_batch      examples end to end in one row
  feed              the next step's batch while this one runs
  schedule          the learning rate
  optimizer         AdamW on one flat buffer
  lora_parameters   that buffer
  step              what the loop wants of a step
  step_reports      events, read from the device in groups
  snapshot          what a checkpoint holds
  checkpoints       folders that are whole, checked and few
  durable_files     files that are whole or absent
  adapter           plain PEFT adapters
"""
