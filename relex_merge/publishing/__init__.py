"""A training run on a disk, published as a series: a revision of one Hub repo per checkpoint."""
