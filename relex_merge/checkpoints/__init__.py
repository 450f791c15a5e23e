"""What a checkpoint is, where the checkpoints of a run are, and which files belong to each."""
