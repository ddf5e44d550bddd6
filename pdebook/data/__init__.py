"""Data sets that several chapters use.

| module | holds |
|---|---|
| ``digits`` | scikit-learn's 8x8 handwritten digits: normalised, split, up-sampled |
| ``trajectories`` | windows and all-to-all pairs of trajectories, in memory or in files; batches as functions of (seed, step) |
| ``normalizers`` | normalisers whose statistics travel in the state dict |
"""
