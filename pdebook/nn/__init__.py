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
| ``channel`` | linear maps, perceptrons and gates of the channels at each point; norms; skip connections |
| ``grid_embedding`` | coordinates as further channels |
| ``padding`` | padding of the domain, and its removal |
| ``decompositions`` | ranks, HOSVD, TT-SVD, alternating least squares |
| ``factorized`` | complex weights: dense, Tucker, CP, tensor train, shared by layers; contracted factor by factor |
| ``spectral`` | spectral convolution |
| ``fno`` | Fourier neural operator: its block, and the model |
| ``neuraloperator`` | weights of neuraloperator's FNO and TFNO, taken into ours |
| ``pde_unet`` | skeleton of a U-Net; convolutional blocks and upsampling; PDEBench's baseline |
"""
