"""Blocks that networks of several parts are assembled from.

| module | holds |
|---|---|
| ``embeddings`` | features of a scalar such as a time or a noise level; embedding of a noise level and a class |
| ``mlp`` | residual perceptron modulated by a conditioning vector |
| ``conv`` | convolutional residual block with conditioning, attention among pixels, a small classifier of images |
| ``unet`` | U-Net for images at a noise level, with or without a class |
"""
