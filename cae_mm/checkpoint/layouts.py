"""What each origin calls the same arrays: data, read in both directions by ``convert``.

A row names one array, first by our name. ``{}`` is the number of a block; a name that ends with a
dot stands for its weight and its bias; ``*`` is anything; None: a layout has no such array.
"""
# 'official' is BEiT's too, there and in timm, 'timm' also MAE's; 'mmpretrain' is its BEiTViT, which its CAE
# uses, 'mmpretrain-vit' its VisionTransformer, which its MAE uses; 'transformers' is its BEiT.
LAYOUTS = ('cae_mm', 'official', 'timm', 'mmpretrain', 'mmpretrain-vit', 'transformers')

# What the encoder's names may begin with. The first is written, the last where BARE says so.
PREFIXES = dict(zip(LAYOUTS, (('backbone.', ''), ('encoder.', ''), ('',), ('backbone.', ''),
                              ('backbone.', ''), ('beit.', '')), strict=True))
BARE = {'official': ('classifier', 'linear probe', 'attentive probe', 'feature pyramid')}

BLOCK = [  # ours, official, timm, mmpretrain's BEiTViT, mmpretrain's VisionTransformer, transformers' BEiT
    ('norm1.', 'norm1.', 'norm1.', 'ln1.', 'ln1.', 'layernorm_before.'),
    ('norm2.', 'norm2.', 'norm2.', 'ln2.', 'ln2.', 'layernorm_after.'),
    ('attn.qkv.weight', 'attn.qkv.weight', 'attn.qkv.weight', 'attn.qkv.weight', 'attn.qkv.weight', None),
    *[(f'attn.{part}.weight', None, None, None, None, f'attention.attention.{theirs}.weight')
      for part, theirs in zip('qkv', ('query', 'key', 'value'), strict=True)],
    ('attn.q_bias', 'attn.q_bias', None, 'attn.q_bias', None, 'attention.attention.query.bias'),
    ('attn.v_bias', 'attn.v_bias', None, 'attn.v_bias', None, 'attention.attention.value.bias'),
    # Queries, keys and values together, with a bias of the keys that we do not have.
    ('attn.qkv.bias', None, 'attn.qkv.bias', None, 'attn.qkv.bias', None),
    ('attn.proj.', 'attn.proj.', 'attn.proj.', 'attn.proj.', 'attn.proj.', 'attention.output.dense.'),
    ('attn.rel_pos.relative_position_bias_table', 'attn.relative_position_bias_table', None,
     'attn.relative_position_bias_table', None,
     'attention.attention.relative_position_bias.relative_position_bias_table'),
    ('gamma_1', 'gamma_1', 'ls1.gamma', 'gamma_1', 'attn.gamma1.weight', 'lambda_1'),
    ('gamma_2', 'gamma_2', 'ls2.gamma', 'gamma_2', 'ffn.gamma2.weight', 'lambda_2'),
    ('mlp.fc1.', 'mlp.fc1.', 'mlp.fc1.', 'ffn.layers.0.0.', 'ffn.layers.0.0.', 'intermediate.dense.'),
    ('mlp.fc2.', 'mlp.fc2.', 'mlp.fc2.', 'ffn.layers.1.', 'ffn.layers.1.', 'output.dense.'),
]
BLOCKS = ('blocks.{}.', 'blocks.{}.', 'blocks.{}.', 'layers.{}.', 'layers.{}.', 'encoder.layer.{}.')
ENCODER = [
    ('cls_token', 'cls_token', 'cls_token', 'cls_token', 'cls_token', 'embeddings.cls_token'),
    ('pos_embed', 'pos_embed', 'pos_embed', 'pos_embed', 'pos_embed', 'embeddings.position_embeddings'),
    ('patch_embed.', 'patch_embed.proj.', 'patch_embed.proj.', 'patch_embed.projection.',
     'patch_embed.projection.', 'embeddings.patch_embeddings.projection.'),
    # One table for all blocks, which BEiT has in pre-training.
    ('rel_pos_bias.relative_position_bias_table', 'rel_pos_bias.relative_position_bias_table', None,
     'rel_pos_bias.relative_position_bias_table', None,
     'encoder.relative_position_bias.relative_position_bias_table'),
    *[tuple(name and blocks + name for blocks, name in zip(BLOCKS, row, strict=True))
      for row in BLOCK],
]
# The final norm, over all tokens or behind the mean of the patch tokens: one parameter of ours.
NORMS = dict(token=('norm.', 'norm.', 'norm.', 'ln1.', 'ln1.', 'layernorm.'),
             mean=('norm.', 'fc_norm.', 'fc_norm.', 'ln2.', 'ln2.', 'pooler.layernorm.'))

CROSS_ATTENTION = [  # ours, official and mmpretrain
    ('q.weight', 'q.weight'), ('q.bias', 'q_bias'), ('k.weight', 'k.weight'),
    ('v.weight', 'v.weight'), ('v.bias', 'v_bias'), ('proj.', 'proj.'),
]
REGRESSOR = [  # ours, official, mmpretrain
    ('norm1_q.', 'norm1_q.', 'norm1_q_cross.'),
    ('norm1_k.', 'norm1_k.', 'norm1_k_cross.'),
    ('norm1_v.', 'norm1_v.', 'norm1_v_cross.'),
    ('norm2.', 'norm2_cross.', 'norm2_cross.'),
    ('gamma_1', 'gamma_1_cross', 'gamma_1_cross'),
    ('gamma_2', 'gamma_2_cross', 'gamma_2_cross'),
    ('mlp.fc1.', 'mlp_cross.fc1.', 'ffn.layers.0.0.'),
    ('mlp.fc2.', 'mlp_cross.fc2.', 'ffn.layers.1.'),
    *[('attn.' + ours, 'cross_attn.' + theirs, 'cross_attn.' + theirs)
      for ours, theirs in CROSS_ATTENTION],
]
STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


def _pretraining(layout: str, regressor: str, decoder: str) -> list[tuple[str, str]]:
    column, side = LAYOUTS.index(layout), ('official', 'mmpretrain').index(layout) + 1
    return ([('neck.blocks.{}.' + row[0], regressor + row[side]) for row in REGRESSOR]
            + [('head.blocks.{}.' + row[0], decoder + row[column]) for row in BLOCK if row[column]])


# What stands on the encoder, by layout and kind: pairs of our name and theirs.
HEADS = {
    'official': {
        'pre-training': [
            ('neck.pos_embed', 'rd_pos_embed'),
            ('neck.mask_token', 'mask_token'),
            ('neck.project.0.', 'encoder_to_regresser.'),
            ('neck.project.1.', 'encoder_to_regresser_norm.'),
            ('neck.norm.', 'regresser.norm.'),
            ('head.norm.', 'decoder.norm.'),
            ('head.head.', 'decoder.head.'),
            *_pretraining('official', 'regresser.regressor_blocks.{}.', 'decoder.decoder_blocks.{}.'),
        ],
        'classifier': [('head.fc.', 'head.')],
        'linear probe': [('head.fc.', 'head.1.'),
                         *[(f'neck.bn.{name}', f'head.0.{name}') for name in STATISTICS]],
        'attentive probe': [
            ('head.fc.', 'head.'),
            ('head.query_token', 'query_token'),
            *[(f'head.{norm}.', f'attentive_blocks.0.{norm}.')
              for norm in ('norm_q', 'norm_k', 'norm_v')],
            *[(f'head.cross_attn.{ours}', f'attentive_blocks.0.cross_attn.{theirs}')
              for ours, theirs in CROSS_ATTENTION],
            *[(f'head.bn.{name}', f'fc_norm.{name}') for name in STATISTICS],
        ],
        'feature pyramid': [
            *[(f'neck.upsample4.{i}.', f'fpn1.{i}.') for i in (0, 1, 3)],
            *[(f'neck.upsample4.1.{name}', f'fpn1.1.{name}') for name in STATISTICS],
            ('neck.upsample2.', 'fpn2.0.'),
        ],
    },
    'timm': {'classifier': [('head.fc.', 'head.')]},
    'transformers': {'classifier': [('head.fc.', 'classifier.')]},
    'mmpretrain': {
        'pre-training': [
            ('neck.mask_token', 'neck.mask_token'),
            ('neck.norm.', 'neck.norm_regressor.'),
            ('head.norm.', 'neck.norm_decoder.'),
            ('head.head.', 'neck.head.'),
            *_pretraining('mmpretrain', 'neck.regressors.{}.', 'neck.decoders.{}.'),
        ],
        'classifier': [('head.fc.', 'head.fc.'), ('head.fc.', 'head.layers.head.')],
        'linear probe': [('head.fc.', 'head.fc.'),
                         *[(f'neck.bn.{name}', f'neck.bn.{name}') for name in STATISTICS]],
    },
}
HEADS['mmpretrain-vit'] = {kind: HEADS['mmpretrain'][kind] for kind in ('classifier', 'linear probe')}

# Our models by the first of these arrays that they have.
KINDS = {'pre-training': 'neck.mask_token', 'linear probe': 'neck.bn.running_mean',
         'attentive probe': 'head.query_token', 'classifier': 'head.fc.weight',
         'feature pyramid': 'neck.upsample2.weight'}
HEADS['cae_mm'] = {kind: [('neck.*', 'neck.*'), ('head.*', 'head.*')] for kind in KINDS}

# What serves as the position table of the regressor and the decoder too.
ONE_POSITION_TABLE = {'official': 'neck.pos_embed', 'mmpretrain': 'backbone.pos_embed'}
# The network that gives the targets of the alignment: a copy of the encoder, under this prefix.
COPIES = {'official': 'alignment_encoder.', 'mmpretrain': 'teacher.'}

# Arrays that follow from others, or that training takes as an input.
DERIVED = [r'.*relative_position_index', r'alignment_encoder\..*', r'teacher\..*',
           r'target_generator\..*']
# Arrays that do not belong to the encoder, in layouts that give it no prefix: MAE's decoder, heads.
BESIDE_ENCODER = [r'decoder_.*', r'(embeddings\.)?mask_token', r'head\..*', r'pre_logits\..*',
                  r'lm_head\..*']

# Other vision transformers, which timm's classes hold and ours does not: whose, what timm's names of them
# have, and an array that tells them. The first row that has one counts.
OTHERS = [
    ('EVA-02', 'eva02', r'(.*\.)?(mlp\.(fc1_[gx]|w[12]|ffn_ln)|rope\.freqs.*|attn\.inner_attn_ln)(\..*)?'),
    ('DINOv3', 'dinov3', r'(.*\.)?(storage_tokens|rope_embed(dings)?\..*|qkv\.bias_mask|mlp\.up_proj\..*)'),
    ('DINOv2 or DINOv3, with registers', 'dino', r'(.*\.)?reg(ister)?_tokens?'),
    ('SAM', 'sam', r'(.*\.)?attn\.rel_pos_[hw]'),
    ('SigLIP', 'siglip', r'(.*\.)?(attn_pool|head\.attention)\..*|(.*\.)?head\.probe'),
    ('CLIP', 'clip', r'(.*\.)?(norm_pre|ln_pre|pre_layrnorm|transformer\.resblocks)\..*'),
]

# Attention heads, which arrays do not tell, by width, or by width and number of blocks, where they are
# not width / 64: large models, a small one of mmpretrain; and the authors' tiny and small.
HEADS_BY_SIZE = {(768, 8): 8, 1280: 16, 1408: 16, 1664: 16, 1792: 16}
OFFICIAL_HEADS = {192: 12, 384: 12}

# What a .pth of each layout holds its state dict under, and how its users load it.
FILE_KEYS = dict.fromkeys(LAYOUTS, 'state_dict') | {'official': 'model', 'lwdetr': 'model'}
USAGE = {
    'cae_mm': "backbone.init_cfg=dict(type='Pretrained', checkpoint='{out}', prefix='backbone.')",
    'official': "model.load_state_dict(torch.load('{out}')['model'])",
    'timm': "timm.create_model(NAME, {heads}init_values=1., num_classes={classes}, global_pool='{timm}', "
            "checkpoint_path='{out}')",
    'mmpretrain': "dict(type='BEiTViT', use_abs_pos_emb=True, use_rel_pos_bias={tables}, {mmpretrain}, "
                  "init_cfg=dict(type='Pretrained', checkpoint='{out}', prefix='backbone.'))",
    'mmpretrain-vit': "dict(type='VisionTransformer', layer_scale_init_value=1., {mmpretrain}, "
                      "init_cfg=dict(type='Pretrained', checkpoint='{out}', prefix='backbone.'))",
    'lwdetr': "LW-DETR's main.py --pretrained_encoder {out}",
    'transformers': 'transformers, from a folder that tools/export.py --to huggingface makes',
}
POOLING = {
    'token': dict(timm='token', mmpretrain="final_norm=True, out_type='cls_token'"),
    'mean': dict(timm='avg', mmpretrain="final_norm=False, out_type='avg_featmap'"),
}
