"""YAML in, a checked and expanded recipe out; and a recipe written for a series."""
