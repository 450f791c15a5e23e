"""Object stores and other places that fsspec knows: addresses, listings, ranges, uploads."""
