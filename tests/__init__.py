"""Tests of relex-merge; a package, so that `tests.fake_hub` can be imported from anywhere in it."""
