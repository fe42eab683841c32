# The encoder and the data that make demo leaves in demo_out; trainings are shorter than in their configs,
# so that three encoders take minutes.
encoder = 'configs/pretrain/cae_vitt_demo.py'

tasks = dict(
    knn=dict(run='tools/knn.py', data='imagenet', metric='knn/top1_k10', options=['--k', '10']),
    linear_quick=dict(run='tools/linear_probe.py', data='imagenet', metric='linear/top1'),
    attentive=dict(run='configs/cls/attentive_cae_vitt_demo.py', data='imagenet', metric='accuracy/top1',
                   options=['max_epochs=1']),
    finetune=dict(run='configs/cls/finetune_cae_vitt_demo.py', data='imagenet', metric='accuracy/top1',
                  options=['max_epochs=1']),
    mask_rcnn=dict(run='configs/det/mask_rcnn_cae_vitt_demo.py', data='coco', metric='coco/bbox_mAP',
                   percent=100., options=['max_epochs=3']),
    upernet=dict(run='configs/seg/upernet_cae_vitt_demo.py', data='ade20k', metric='mIoU',
                 options=['max_iters=200']))
