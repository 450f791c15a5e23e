"""Tests of relex-merge; a package, so that `tests.hub` can be imported from anywhere in it."""
