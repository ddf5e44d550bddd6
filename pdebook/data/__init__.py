"""Data sets that several chapters use.

| module | holds |
|---|---|
| ``digits`` | scikit-learn's 8x8 handwritten digits: normalised, split, up-sampled |
| ``series`` | time series whose law is known: spirals, moons, oscillations, pendulums, populations, Ornstein and Uhlenbeck's process |
| ``trajectories`` | windows and all-to-all pairs of trajectories, in memory or in files; batches as functions of (seed, step) |
| ``normalizers`` | normalisers whose statistics travel in the state dict |
"""
