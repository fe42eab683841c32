# Small pictures on a CPU: a labelled folder, and pictures in the layouts of COCO and ADE20K, at any size.
# Trainings are shorter than in their configs, so that an encoder takes minutes.
#   tools/benchmark.py configs/benchmark/small.py --models cae=CKPT random=none --imagenet DIR
encoder = 'configs/pretrain/cae_vitt_eurosat.py'

tasks = dict(
    knn=dict(run='tools/knn.py', data='imagenet', metric='knn/top1_k10', options=['--k', '10']),
    linear_quick=dict(run='tools/linear_probe.py', data='imagenet', metric='linear/top1'),
    attentive=dict(run='configs/cls/attentive_cae_vitt_eurosat.py', data='imagenet', metric='accuracy/top1',
                   options=['num_classes={classes}', 'max_epochs=2']),
    finetune=dict(run='configs/cls/finetune_cae_vitt_eurosat.py', data='imagenet', metric='accuracy/top1',
                  options=['num_classes={classes}', 'max_epochs=2']),
    mask_rcnn=dict(run='configs/det/mask_rcnn_cae_vitt_small.py', data='coco', metric='coco/bbox_mAP',
                   percent=100., options=['max_epochs=8', 'param_scheduler.1.milestones=[6]']),
    upernet=dict(run='configs/seg/upernet_cae_vitt_small.py', data='ade20k', metric='mIoU',
                 options=['classes={data}/classes.txt', 'max_iters=300']))
