# Fine-tune the small CAE of configs/pretrain/cae_vitt_eurosat.py: minutes on 2 CPU cores.
#   tools/train.py configs/cls/finetune_cae_vitt_eurosat.py --data-root DIR --pretrained CHECKPOINT
# The same network from scratch; the decay with depth is for pre-trained layers:
#   ... --pretrained none --cfg-options optim_wrapper.paramwise_cfg.layer_decay_rate=1
_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/cls_small.py']
data_root = 'data/eurosat'
num_classes = 10
pretrained = 'work_dirs/cae_vitt_eurosat/epoch_15.pth'

# Keys that change results.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='CAEViT', arch=dict(embed_dims=192, num_layers=6, num_heads=3), img_size=64,
        patch_size=8, out_type='avg_featmap', use_rel_pos_bias=True, drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained, prefix='backbone.')),
    head=dict(
        type='LinearClsHead', num_classes=num_classes, in_channels=192,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5)))
data_preprocessor = dict(num_classes=num_classes)
train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.75, decay_cls_token=False))
auto_scale_lr = dict(base_batch_size=32)
param_scheduler = dict(
    type='WarmupCosineLR', warmup_epochs=1, min_lr=1e-6, by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(type='ResumableEpochLoop', max_epochs=5, val_interval=1)

# Keys that do not.
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=2), classes=dict(type='ClassesHook'))
