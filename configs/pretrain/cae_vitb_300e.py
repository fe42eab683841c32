# CAE ViT-B, 300 epochs on ImageNet-1k. 148.68 M parameters, 85.66 M of them the encoder.
# The authors report: linear 64.5, attentive 74.0, fine-tune 83.6, ADE20K 48.1 mIoU, COCO 48.3 / 42.7 AP.
_base_ = [
    '../_base_/models/cae_vitb.py',
    '../_base_/datasets/pretrain_imagenet.py',
    '../_base_/schedules/cae_pretrain.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_epochs=300)
param_scheduler = dict(warmup_epochs=10)
