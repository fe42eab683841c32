# The d-VAE in DALL-E's size: 112 px -> 112 / 8 = 14 x 14 codes, one per 16 px patch of 224 px.
dvae = dict(
    type='DiscreteVAE',
    num_codes=8192,
    hidden_dims=256,  # 256, 512, 1024, 2048 channels: 53.8 M parameters in the encoder
    code_dims=128,
    num_groups=4,  # stride 2 ** (4 - 1) = 8
    blocks_per_group=2,
    temperature=(1.0, 1 / 16),  # annealed as in DALL-E ...
    anneal=0.5,  # ... which took 150,000 of its 3,000,000 iterations; this run is far shorter
    reconstruction='logit_laplace',
    # DALL-E weights the divergence 6.6 per position, and sums over pixel values. Here both are
    # means, and 8 x 8 x 3 = 192 values share a position: 6.6 / 192 = 0.034. The same factor is a
    # starting point, not a tuned one, for the divergence of the mean.
    regulariser='usage',
    weight=0.034)
