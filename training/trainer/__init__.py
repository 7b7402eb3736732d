"""The doors for a program that trains in its own process, as a script or a notebook does.

trainer          Trainer, of these parts:
session          what they share: settings, the home with the runs, the last training
training         train, multi_run
asking           generate, evaluate, and the model in memory
delivering       export, save, push_to_hub
callbacks        what is called during a training, and the progress bar of a notebook
older_arguments  keywords of version 1
older_callbacks  callbacks with the arguments of version 1
older_names      what a program of version 1 imports
ended            what is returned: TrainingRun, MultiRun, Export
loaded           load_model, load_dataset: a model and rows in the program's own memory
"""
