"""Our training loop: batches, optimizer, schedule, evaluation, checkpoints, resume."""
