"""What the machine has: GPUs, memory, cores."""
