# The protocols of the paper: ImageNet-1k, COCO and ADE20K, with the configs of this project.
#   tools/benchmark.py configs/benchmark/imagenet_coco_ade20k.py --models cae=CKPT --imagenet DIR \
#       --coco DIR --ade20k DIR
encoder = 'cae_vitb'

# Labels of models, and their numbers for ViT-B: the authors' of CAE after 800 epochs.
source = 'https://github.com/Atten4Vis/CAE'
tasks = dict(
    knn=dict(run='tools/knn.py', data='imagenet', metric='knn/top1_k20',
             options=['--k', '10', '20', '--img-size', '224']),
    linear_quick=dict(run='tools/linear_probe.py', data='imagenet', metric='linear/top1',
                      options=['--img-size', '224']),
    linear=dict(run='configs/cls/linear_cae_vitb_90e.py', data='imagenet', metric='accuracy/top1',
                published=dict(cae=68.9), source=source),
    attentive=dict(run='configs/cls/attentive_cae_vitb_90e.py', data='imagenet', metric='accuracy/top1',
                   published=dict(cae=75.9), source=source),
    finetune=dict(run='configs/cls/finetune_cae_vitb_100e.py', data='imagenet', metric='accuracy/top1',
                  published=dict(cae=83.8), source=source),
    mask_rcnn=dict(run='configs/det/mask_rcnn_cae_vitb_1x_coco.py', data='coco', metric='coco/bbox_mAP',
                   percent=100., published=dict(cae=49.9), source=source),
    upernet=dict(run='configs/seg/upernet_cae_vitb_160k_ade20k.py', data='ade20k', metric='mIoU',
                 published=dict(cae=49.7), source=source),
    linear_seg=dict(run='configs/seg/linear_cae_vitb_40k_ade20k.py', data='ade20k', metric='mIoU'))
