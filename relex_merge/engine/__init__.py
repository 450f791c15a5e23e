"""Out-of-core arithmetic over the base and T checkpoints: plan, schedule, loops."""
