"""Engines: what turns examples into an adapter. open_model(plan, report).train(data, …) is the way in.

run                     open a model and train it, in one call
open_model              a plan's model, whichever engine trains it; another one where that is unavailable
loaded_model            what an open model can do: train, losses, generate, adapter values
plan                    what an engine is given and gives back
planner                 defaults and "auto" of a spec, resolved, with reasons
hyperparameters         learning rate and epochs from model and data, where none are given
select_engine           which of our two steps trains a model, and why
peft_adapter            plain PEFT adapters, read and written
plain_peft              a finished adapter, read by PEFT itself, and what of the base it covers
lora_parameters         all LoRA matrices in one flat buffer
out_of_memory           a lack of memory, and the next setting that needs less
generate                greedy answers in batches
tuned_model             a base with an adapter, loaded only to be asked
questions               questions before and after training
device                  the device that torch sees, and its memory
loop/                   the loop that our two steps run in
  fit                   steps, evaluation, early stopping, checkpoints, resume, out of memory
  step                  what the loop needs of a step
  packing               which examples make up a step, and how it is split
  batch                 examples end to end in one row
  prefetch              the next step's batch while this one runs
  lr_schedule           the learning rate
  optimizer             AdamW on the flat buffer
  example_losses        the loss of each example on its own
  metrics               events of steps and evaluations, read from the device in groups
  training_state        what a checkpoint holds
  checkpoints           folders that are whole, checked and few
packed/                 our own forward and backward, for Llama-like decoders
  engine                the decoder as a step of the loop
  decoder               the layers: forward, backward, recomputation
  decoder_config        sizes read from a config, and why a model cannot be packed
  lora_linear           linear layers with their LoRA in the same GEMM
  attention             causal attention within the examples of a row
  fused_ops             norms, rotary positions, SwiGLU
  fused_cross_entropy   head and cross-entropy at the label positions
  cuda_graphs           all kernels of a small model in two launches
  load_weights          safetensors straight into the merged buffers
  peft_view             these buffers as a transformers model, to generate with
  gguf_decoder          the decoder of a GGUF file, which proves the file
autograd/               any other causal model, by transformers, PEFT and autograd
  engine                a PEFT model as a step of the loop
  peft_lora             its LoRA in our flat buffer
  base_model            the base and its linear modules
  label_losses          the loss at each label, by any model of transformers
  rope_border           which examples must not share a batch
trl/                    TRL's trainer, in its own loop
  engine                SFTTrainer with our examples and our events
unsloth/                Unsloth's trainer, in another environment
  engine                its events and its outcome; answers come from our own engine's model
  process               its job, its process, and the messages between the two
  child                 what runs there; imports nothing of ours
"""
