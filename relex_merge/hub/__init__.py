"""Everything that talks to the Hugging Face Hub: downloads, range reads, commits, errors."""
