"""Engines: what turns examples into an adapter. open_model(plan, report).train(data, …) is the way in.

run                     open a model and train it, in one call
follow                  what the processes beside the run's worker do, where several train together
open_model              a plan's model, whichever engine trains it; another one where that is unavailable
loaded_model            what an open model can do: train, losses, generate, adapter values
load_together           the model of a plan, in all processes at once
plan                    what an engine is given and gives back
planner                 the plan of a run, by the choices of planning/
select_engine           which of our two steps trains a model, and why
peft_adapter            plain PEFT adapters, read and written
plain_peft              a finished adapter, read by PEFT itself, and what of the base it covers
lora_parameters         all LoRA matrices in one flat buffer
out_of_memory           a lack of memory, and the next setting that needs less
lighter_plan            the same training in less memory, when smaller parts do not help
generate                greedy answers in batches
new_text                what an answer says next, while it is made
padding                 models that padding changes
tuned_model             a base with an adapter, loaded only to be asked
questions               questions before and after training
device                  the device that torch sees, and its memory
loop/                   the loop that our two steps run in
  fit                   steps, evaluation, early stopping, checkpoints, resume, out of memory
  step                  what the loop needs of a step
  gradients             loss and gradients of a step, over all processes
  held_out_loss         the loss on held-out examples, over all processes
  packing               the steps of a plan, and how well they are packed
  batch                 examples end to end in one row
  prefetch              the next step's batch while this one runs
  lr_schedule           the learning rate
  optimizer             AdamW on the flat buffer
  example_losses        the loss of each example on its own
  metrics               events of steps and evaluations, read from the device in groups
  training_state        what a checkpoint holds
  checkpoints           folders that are whole, checked and few
parallel/               several processes that train together: one decides, all compute
  ranks                 what the loop asks of them; `ALONE` where there is one
  orders                what the first tells the others
  group                 they as a group of torch.distributed
  heartbeat             who of them is alive
packed/                 our own forward and backward, for the decoders of models/decoder_families
  engine                the decoder as a step of the loop
  decoder               all layers: forward, backward, recomputation
  decoder_layer         one layer: forward, and backward by hand
  mlp                   a layer's dense MLP
  sparse_mlp            an MLP with experts
  dense_beside_experts  Gemma 4's: an MLP and experts, each between norms of its own
  router                which experts a token goes to
  expert_linear         the same linear of all experts, with their LoRA
  expert_products       products of rows that are sorted by expert
  expert_places         where a checkpoint's tensors of experts belong
  make_layer            a layer without its weights, and what of it has a LoRA
  adapter_targets       how adapter_config.json names that
  residual_stream       how attention and MLP read the residual stream and add to it
  open_decoder          a decoder with the weights of a model folder
  embedding             rows of the embedding, from wherever it lies
  layer_embeddings      embeddings that tokens have for each layer, and what layers make of them
  gather_kernel         these read by a GPU from host memory
  decoder_config        sizes and switches read from a config
  lora_linear           linear layers with their LoRA in the same GEMM
  extended_rows         what such a GEMM takes in
  extend_kernel         this on a GPU
  gpu_kernels           whether there are kernels of Triton
  refresh_kernel        what these take over after a step, on a GPU in one launch
  expanded_linear       the same, of weights that are kept in another form or place
  fp8                   matrices in FP8, and products with them
  fp8_kernel            what quantises them on a GPU
  fp8_linear            linear layers whose frozen weight is in FP8
  fused_mlp             a gated MLP whose kernels do the LoRA's part; also between two of these
  gated_mlp_kernel      its activation, with the LoRA's gradients, on a GPU
  mxfp4                 experts in 4 bits, as gpt-oss stores them
  nf4                   weights in 4 bits, as bitsandbytes stores them
  nf4_kernel            these expanded on a GPU
  nf4_checkpoint        these read from a checkpoint that has them
  stored_weights        a layer's weights in one buffer of bytes
  weight_layouts        which weights are kept in 4 bits
  layer_store           where the layers' weights are kept
  sharded_store         the same, of which each rank keeps a part
  passes                passes in which all ranks gather these parts
  weight_stream         layers on their way to the device, from host memory or other ranks
  host_memory           host memory that a GPU copies from
  rotary                the rotary positions of each layer
  head_rotation         these, and norms, on queries and keys
  norms                 the kinds of norms
  norm_kernels          RMSNorm on a GPU
  rotation_kernels      rotary positions with the norm of a head on a GPU
  gated_activations     SwiGLU, GeGLU, and the clamped SwiGLU of gpt-oss
  attention             causal attention within the examples of a row
  shared_keys           keys and values that later layers use too
  fused_ops             Llama's norm, rotary positions and SwiGLU
  fused_cross_entropy   head and cross-entropy at the label positions
  cross_entropy_kernel  the latter on a GPU
  cuda_graphs           all kernels of a small model in two launches
  load_weights          safetensors straight into the merged buffers
  read_rows             the threads that read them
  quantised_weights     weights that are quantised on the way
  warm_up               kernels compiled meanwhile
  peft_view             the decoder as a transformers model, to generate with
  gguf_decoder          the decoder of a GGUF file, which proves the file
autograd/               any other causal model, by transformers, PEFT and autograd
  engine                a PEFT model as a step of the loop
  peft_lora             its LoRA in our flat buffer
  base_model            the base and its linear modules
  label_losses          the loss at each label, by any model of transformers
  rope_border           which examples must not share a batch
  recurrent_layers      which models are slow by their layers, and what would make them fast
trl/                    TRL's trainer, in its own loop
  engine                SFTTrainer with our examples and our events
unsloth/                Unsloth's trainer, in another environment
  engine                its events and its outcome; answers come from our own engine's model
  process               its job, its process, and the messages between the two
  child                 what runs there; imports nothing of ours
"""
