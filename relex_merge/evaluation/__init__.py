"""What a model can do, measured: divergences from text, accuracies from tasks, choice, verdict.

lm-eval and vLLM are extras; they are imported when a task is measured, by this room alone.
"""
