"""Blocks that networks of several parts are assembled from.

| module | holds |
|---|---|
| ``embeddings`` | features of a scalar such as a time or a noise level; embedding of a noise level and a class |
| ``mlp`` | plain perceptron; residual perceptron modulated by a conditioning vector |
| ``jets`` | derivatives of a network in its input, by Taylor polynomials |
| ``fields`` | networks of a point: SIREN, Fourier features, multiplicative filters, hard constraints |
| ``collocation`` | points in domains and on their boundaries |
| ``conv`` | convolutional residual block with conditioning, attention among pixels, a small classifier of images |
| ``unet`` | U-Net for images at a noise level, with or without a class |
"""
