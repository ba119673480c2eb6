"""What training stages share: the trainer, checks before step 1, checkpoints, resume."""
