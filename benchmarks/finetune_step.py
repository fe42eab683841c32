"""Time and memory of a step of classification, against mmpretrain's own models in the same run.

    python benchmarks/finetune_step.py                       # float32 on the CPU, ViT-B dimensions
    python benchmarks/finetune_step.py --task linear         # the encoder frozen
    python benchmarks/finetune_step.py --device cuda --batch-size 128 --amp

A step is data preprocessing with mixup and cutmix where the recipe has them, forward, backward and the
optimizer with its parameter groups. Fine-tuning: our ViT with fixed positions and a relative position
bias, mmpretrain's BEiTViT with the bias alone. Linear: our ViT and mmpretrain's VisionTransformer, all
frozen, batch norm and a linear layer. Same dimensions, images, precision and optimizer wrapper; random
weights.
"""
from functools import partial
from pathlib import Path

import contest
import torch

ROOT = Path(__file__).resolve().parents[1]
OURS = {'finetune': 'finetune_cae_vitb_100e.py', 'linear': 'linear_cae_vitb_90e.py'}
PEERS = {'finetune': 'beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k.py',
         'linear': 'mae/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k.py'}


def make_batch(batch_size):
    """uint8 images and their labels."""
    from mmpretrain.structures import DataSample
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, 224, 224), dtype=torch.uint8, generator=generator)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(i) for i in range(batch_size)])


def build(path, arch, args):
    """The classifier of a config with the width, depth and heads asked for, its optimizer, a batch."""
    from mmengine import Config
    from mmpretrain.registry import MODELS

    from cae_mm.models.vit import parse_arch
    config = Config.fromfile(path)
    dims, depth, heads = parse_arch(args.arch)
    config.model.backbone.update(arch=arch(dims, depth, heads), init_cfg=None)
    if args.task == 'linear':
        config.model.backbone.frozen_stages = depth
        config.model.neck.input_features = dims
    config.model.head.in_channels = dims
    config.model.data_preprocessor = config.data_preprocessor
    model = MODELS.build(config.model)
    model.init_weights()
    # Each step is one of the optimizer. mmpretrain's wrapper for bfloat16 needs a GPU.
    wrapper = dict(config.optim_wrapper, type='AutocastOptimWrapper', amp=args.amp,
                   accumulative_counts=1)
    return model, wrapper, make_batch(args.batch_size)


def main():
    """Let both take turns and print images/s, peak memory and the ratios."""
    parser = contest.make_parser(__doc__.split('\n')[0])
    parser.add_argument('--task', choices=OURS, default='finetune')
    parser.add_argument('--arch', default='base', help='dimensions: tiny, small, base, large')
    args = parser.parse_args()

    import mmpretrain
    configs = Path(mmpretrain.__file__).parent / '.mim' / 'configs'

    def ours(dims, depth, heads):
        return dict(embed_dims=dims, num_layers=depth, num_heads=heads)

    def peer(dims, depth, heads):
        return dict(ours(dims, depth, heads), feedforward_channels=4 * dims)

    contest.run(args, {
        'cae_mm': partial(build, ROOT / 'configs' / 'cls' / OURS[args.task], ours),
        'mmpretrain': partial(build, configs / PEERS[args.task], peer)})


if __name__ == '__main__':
    main()
