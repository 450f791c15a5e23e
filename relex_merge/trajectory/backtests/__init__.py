"""Predictions of what was observed, and what they say about a prediction of what was not."""
