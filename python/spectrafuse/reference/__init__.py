"""The published formulation of every operation in plain PyTorch, literal: the specification and the 1x of ratios."""
