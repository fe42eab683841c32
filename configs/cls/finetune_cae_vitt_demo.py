# Fine-tune the demo's CAE on its 64 px images of digits: two minutes on 2 CPU cores.
#   tools/train.py configs/cls/finetune_cae_vitt_demo.py --pretrained demo_out/pretrain/epoch_14.pth
_base_ = './finetune_cae_vitt_eurosat.py'
data_root = 'demo_out/data/imagenet'
pretrained = 'demo_out/pretrain/epoch_14.pth'

# Keys that change results.
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=128, num_layers=6, num_heads=4),
        init_cfg=dict(checkpoint=pretrained)),
    head=dict(in_channels=128))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    # Digits: no mirror images.
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0), backend='pillow',
         interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root, pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
train_cfg = dict(max_epochs=2)
