"""What is measured, once for the whole book.

| module | holds |
|---|---|
| `order` | observed order of convergence: slopes, standard error, error constant, round-off, table, plot data |
| `distributions` | distances of samples: trajectory, sliced W2, Wasserstein, energy, Frechet, KS, KL; effective size |
| `sampling` | estimates with standard error and floor: the bootstrap of any statistic, the split-half floor |
| `fields` | errors of predicted fields over batches: RMSE, normalised, conserved, at walls, in bands; correlation times |
"""
