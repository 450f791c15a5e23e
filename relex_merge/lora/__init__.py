"""LoRA series: checkpoints that are adapters on one base, δ_t = s_t B_t A_t.

The Gram matrix of a series needs only products of the factors, and what is written is a weighted
sum of them: no m × n delta of any checkpoint is ever formed, let alone T full models.
"""
