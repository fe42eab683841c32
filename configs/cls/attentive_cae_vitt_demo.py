# Attentive probing of the demo's CAE on its 64 px images of digits: its encoder is frozen.
#   tools/train.py configs/cls/attentive_cae_vitt_demo.py --pretrained demo_out/pretrain/epoch_14.pth
_base_ = './finetune_cae_vitt_demo.py'

# Keys that change results.
model = dict(
    backbone=dict(out_type='raw', use_rel_pos_bias=False, drop_path_rate=0., frozen_stages=6),
    head=dict(_delete_=True, type='AttentiveProbeHead', num_classes=10, in_channels=128, num_heads=2))
# ImageNet's recipe has 0.4 for 8192 images, 90 epochs; a short run with few images needs more.
optim_wrapper = dict(
    _delete_=True, type='AutocastOptimWrapper', constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.))
