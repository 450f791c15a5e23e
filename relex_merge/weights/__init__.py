"""Bytes of tensors, whatever holds them, and the shards that are written."""
