"""The method: schedule, chain, noise and networks, as numbers and tensors."""
