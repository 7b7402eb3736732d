"""Several processes train together, one for each GPU: rank 0 decides, the others compute their share.

ranks.py      what the loop asks of the processes beside this one; `ALONE` where there are none
orders.py     what rank 0 tells the others to do next
group.py      the processes as a group of torch.distributed
heartbeat.py  who of them is still alive

Rank 0 is the run's worker. It alone has the optimizer, the schedule, the checkpoints and the events, and
gives its LoRA values to the others before each step: so nothing that they hold can drift apart, a checkpoint
does not know how many there were, and whatever stops or pauses rank 0 stops or pauses all. `../follow.py` is
what the others do.
"""
