"""Data sets that several chapters use.

| module | holds |
|---|---|
| ``digits`` | scikit-learn's 8x8 handwritten digits: normalised, split, up-sampled |
"""
