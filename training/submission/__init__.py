"""From a spec to a run that is on its way: what `TrainingService` does before and after the run is recorded.

checks.py       what is refused before there is a run
fingerprint.py  what makes two requests equal
plan.py         how a training would run
dispatch.py     the queue of this machine or of a cluster, and the worker's process
spare_worker.py  a worker's process that is ready before there is a run
"""
