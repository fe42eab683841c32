"""Configs of this project so small that two steps take a second on a CPU."""
from mmengine.config import Config

from cae_mm.engine.keys import dicts

ARCH = dict(embed_dims=24, num_layers=4, num_heads=2)
# What is small of mmpretrain's own models, by the ends of their types.
THEIRS = {
    'MAEViT': dict(arch=dict(ARCH, feedforward_channels=96)),
    'PretrainViT': dict(arch=dict(ARCH, feedforward_channels=96)),
    'MAEPretrainDecoder': dict(embed_dim=24, decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=2),
    'CAENeck': dict(embed_dims=24, num_heads=2, regressor_depth=1, decoder_depth=1, num_classes=16),
    'BEiTV1Head': dict(embed_dims=24, num_embed=16),
    'DALL-E': dict(n_hid=8, vocab_size=16)}
# Models of timm, of four families, that take the place of our encoder.
OTHERS = ['vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3', 'vit_base_patch16_siglip_224',
          'beit_base_patch16_224']
# What detectors call their numbers of channels.
WIDTHS = {'in_channels', 'feat_channels', 'out_channels', 'conv_out_channels', 'fc_out_channels'}


def is_small(name: str) -> bool:
    """Whether a config is for small data, and so not in the metafiles."""
    return any(small in name for small in ('cae_vitt', 'mae_vitt', 'v2_vitt_eurosat', 'v2_vitt_flowers'))


def shrink(cfg: Config) -> None:
    """Make the networks of a config narrow and shallow, and the codes of its tokenizer few."""
    model = cfg.model.get('module', cfg.model)
    for node in dicts(model):
        kind = node.get('type', '').split('.')[-1]
        if kind in ('CAEViT', 'TimmViT'):
            node.update(dict(arch=ARCH) if kind == 'CAEViT' else dict(embed_dim=24, depth=4, num_heads=2))
            if node.get('frozen_stages', -1) > 0:
                node.frozen_stages = 4
            if node.get('out_indices', -1) != -1:
                node.out_indices = (0, 1, 2, 3)
        elif kind in ('LatentContextualRegressor', 'CAEDecoder'):
            node.update(embed_dims=24, num_heads=2, depth=min(node.get('depth', 1), 1))
            if 'attn_dims' in node:
                node.attn_dims = 22  # less than the width, as in the official code's 15 heads of 68
            if 'in_dims' in node:
                node.in_dims = 24
        elif kind == 'TokenDecoder':
            node.embed_dims = 24
        elif kind == 'TeacherFeatures':
            node.update(allow_random=True, init_cfg=None)
            if not node.get('projection'):
                model.head.num_outputs = 24
        elif kind in ('DALLETokenizer', 'DiscreteVAE'):
            node.update(num_codes=16, hidden_dims=8)
            if 'num_outputs' in model.get('head', {}):
                model.head.num_outputs = 16
        elif theirs := [small for end, small in THEIRS.items() if kind.endswith(end)]:
            node.update(theirs[0])
        elif kind == 'ClsBatchNormNeck':
            node.input_features = 24
        elif kind == 'AttentiveProbeHead':
            node.num_heads = 2
    if cfg.get('default_scope') == 'mmdet':
        for node in dicts(model):
            node.update(dict.fromkeys(node.keys() & WIDTHS, 8))
        for neck in model.neck if isinstance(model.neck, list) else [model.neck]:
            neck.in_channels = [24] * 4 if neck.type == 'FPN' else 24
    elif cfg.get('default_scope') == 'mmseg':
        for part in filter(None, (model.neck, model.decode_head, model.get('auxiliary_head'))):
            for key in part.keys() & {'in_channels', 'channels'}:
                part[key] = 24 if isinstance(part[key], int) else [24] * 4
    elif 'in_channels' in model.get('head', {}):
        model.head.in_channels = 24
