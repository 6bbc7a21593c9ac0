"""Checkpoints made of random numbers, in the formats of the published ones."""
