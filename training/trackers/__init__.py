"""Experiment trackers: wandb, TensorBoard, MLflow and trackio are told of a training while it runs.

    choice      which ones: named, or installed and configured
    child       the worker's end: one child process per tracker, its warnings, its bounded end
    main        the child: follows events.jsonl, and sends what is new to its tracker
    facts       what a tracker is told at the start: name and settings, without texts and paths
    measures    what it is told then: events and results as numbers
    system_load processor, memory and GPUs
    to_…        one file per tracker

A tracker's library may hang, print, patch others and end slowly. In a process of its own that only reads the
run folder, it does none of this to the training, on any system; the file is the buffer between the two.
"""
