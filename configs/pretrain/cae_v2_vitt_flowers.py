# A small CAE v2 for photographs of about 100 px, whose teacher is an encoder of its own kind: 3.68 M
# parameters. tokenizer=CHECKPOINT of the teacher, e.g. of cae_vitt_flowers or peers/mae_vitt_flowers.
#   tools/train.py configs/pretrain/cae_v2_vitt_flowers.py --data-root DIR
_base_ = './cae_vitt_flowers.py'
tokenizer = 'work_dirs/cae_vitt_flowers/epoch_85.pth'

# Keys that change results.
model = dict(
    neck=dict(final_norm=False),
    head=dict(_delete_=True, type='TokenDecoder', grid_size=8, num_outputs=192, embed_dims=192),
    target_generator=dict(
        _delete_=True, type='TeacherFeatures', init_cfg=dict(type='Pretrained', checkpoint=tokenizer),
        backbone=dict(
            type='CAEViT', arch=dict(embed_dims=192, num_layers=6, num_heads=3), img_size=96,
            patch_size=12)),
    align_weight=0.)
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='TwoViewCrop', size=96, target_size=96, scale=(0.4, 1.0)),
    dict(type='BlockMask', grid=8, num_masked=16, min_per_block=4),  # a quarter
    dict(type='PackViews'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=pipeline)))
