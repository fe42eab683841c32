# Fine-tune CAE ViT-B on ImageNet-1k at 384 pixels, 30 epochs, after the fine-tuning at 224: this recipe is
# ours, in the manner of BEiT's, and no result of it is published.
#   tools/convert.py work_dirs/finetune_cae_vitb_100e/epoch_100.pth OUT --to cae_mm --img-size 384
#   tools/dist_train.sh configs/cls/finetune_cae_vitb_384_30e.py 8 --pretrained none \
#       --cfg-options load_from=OUT
# The first command makes what depends on the patch grid fit: sine-cosine positions are recomputed, relative
# position tables resized. For an encoder that was only pre-trained, --pretrained CHECKPOINT takes the place
# of load_from, and rate, images per step and epochs are those of finetune_cae_vitb_100e.py.
_base_ = './finetune_cae_vitb_100e.py'

# Keys that change results.
model = dict(backbone=dict(img_size=384, init_cfg=dict(resize_rel_pos=True)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=384, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandAugment', policies='timm_increasing', num_policies=2, total_level=10,
         magnitude_level=9, magnitude_std=0.5,
         hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
    dict(type='RandomErasing', erase_prob=0.25, mode='rand', min_area_ratio=0.02,
         max_area_ratio=1 / 3, fill_color={{_base_.bgr_mean}}, fill_std={{_base_.bgr_std}}),
    dict(type='PackInputs'),
]
val_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=384, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=384),
    dict(type='PackInputs'),
]
# 512 images per step = 8 GPUs x 32 x 2 accumulated: 2502 steps per epoch.
train_dataloader = dict(batch_size=32, dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    accumulative_counts=2, optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay_rate=0.75))
auto_scale_lr = dict(base_batch_size=512)
train_cfg = dict(max_epochs=30)
