"""How a step is started: in this process, as a process of its own, on many GPUs, by Slurm."""
