# A d-VAE that trains in minutes on 2 CPU cores: 64 px -> 64 / 8 = 8 x 8 codes.
dvae = dict(
    type='DiscreteVAE',
    num_codes=512,
    # A strided first convolution spares the full resolution: 14 M multiplications per image and
    # network, where stride 1 and four groups of this width would take 340 M.
    stem_stride=4,
    num_groups=2,  # stride 4 * 2 ** (2 - 1) = 8
    hidden_dims=48,
    code_dims=64,
    temperature=(1.0, 1 / 16),
    anneal=0.5,
    reconstruction='mse',
    # Without the regulariser, the codes in use dwindle; images of a narrow kind need little of it.
    regulariser='usage',
    weight=0.01)
