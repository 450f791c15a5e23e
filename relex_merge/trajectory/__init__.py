"""What follows from the Gram matrix G and the steps alone: predictors, backtests, verdict."""
