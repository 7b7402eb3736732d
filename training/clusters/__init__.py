"""Clusters that can carry runs out: what the user says of them, the commands of Slurm, and ssh.

description.py  `clusters.toml` in the home: one table per cluster
slurm.py        sbatch, squeue, sacct, scancel and scontrol, called with lists of arguments
job_script.py   what a job runs, and the names of the variables that it inherits
job_table.py    the jobs of this user, asked at most every few seconds
hosts.py        hosts without a scheduler, as a table lists them
ssh.py          the system's ssh, called with lists of arguments
host_check.py   whether such hosts can be reached, and could share a training
"""
