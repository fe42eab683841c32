"""Time and memory of a pre-training step, against mmpretrain's own CAE in the same run.

    python benchmarks/pretrain_step.py                       # float32 on the CPU, ViT-B dimensions
    python benchmarks/pretrain_step.py --device cuda --batch-size 256 --amp --compile

A step is data preprocessing, forward, backward, clipping and the optimizer. Same dimensions, batch,
masks, tokenizer (random weights) and precision.
"""
from pathlib import Path

import contest
import torch

ROOT = Path(__file__).resolve().parents[1]
NUM_MASKED = 98


def make_batch(batch_size):
    """uint8 images, tokenizer images and masks, the same for both contenders."""
    generator = torch.Generator().manual_seed(0)
    images, targets = (torch.randint(0, 256, (batch_size, 3, s, s), dtype=torch.uint8,
                                     generator=generator) for s in (224, 112))
    mask = torch.rand(batch_size, 196, generator=generator).argsort(1) < NUM_MASKED
    return images, targets, mask


def build_ours(args):
    """This project's ViT-B config with random tokenizer weights."""
    from mmengine import Config
    from mmpretrain.registry import MODELS

    import cae_mm  # noqa: F401
    config = Config.fromfile(ROOT / 'configs/pretrain/cae_vitb_300e.py')
    config.model.target_generator = dict(type='DALLETokenizer', allow_random=True)
    if not args.amp:
        config.model.target_generator.dtype = 'float32'
    model = MODELS.build(config.model)
    if args.compile:
        model.compile_forward()
    images, targets, mask = make_batch(args.batch_size)
    batch = dict(inputs=dict(images=images, target_images=targets, mask=mask))
    return model, dict(config.optim_wrapper, amp=args.amp), batch


def build_peer(args):
    """mmpretrain's config of CAE, with our number of masked patches and no download."""
    import mmpretrain
    from mmengine import Config
    from mmpretrain.registry import MODELS
    from mmpretrain.structures import DataSample

    [path] = Path(mmpretrain.__file__).parent.glob('.mim/configs/cae/*300e_in1k.py')
    config = Config.fromfile(path)
    config.model.target_generator.init_cfg = None
    config.model.neck.mask_tokens_num = NUM_MASKED
    config.model.data_preprocessor = config.data_preprocessor
    model = MODELS.build(config.model)
    model.init_weights()
    images, targets, mask = make_batch(args.batch_size)
    samples = []
    for row in mask:
        samples.append(DataSample())
        samples[-1].set_field(row.view(14, 14).long(), 'mask', field_type='metainfo')
    wrapper = dict(config.optim_wrapper)
    wrapper.pop('loss_scale')
    wrapper.update(dict(type='AmpOptimWrapper', dtype='bfloat16') if args.amp else
                   dict(type='OptimWrapper'))
    # Its preprocessor reorders BGR and expects a batch per view.
    return model, wrapper, dict(inputs=[images, targets], data_samples=samples)


def main():
    """Let all take turns and print images/s, peak memory and the ratios."""
    parser = contest.make_parser(__doc__.split('\n')[0])
    parser.add_argument('--compile', action='store_true', help='torch.compile ours')
    contest.run(parser.parse_args(), {'cae_mm': build_ours, 'mmpretrain CAE': build_peer})


if __name__ == '__main__':
    main()
