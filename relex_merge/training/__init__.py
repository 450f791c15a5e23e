"""A trajectory while it is made: what a trainer's callback keeps of every saved checkpoint."""
