# UperNet on CAE ViT-B at windows of 512 px: 32 x 32 patches.

# Keys that change results.
norm_cfg = dict(type='SyncBN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_val=0, seg_pad_val=255, size=(512, 512),
        # The window of the relative position bias is fixed: smaller test images are filled up to it.
        test_cfg=dict(size=(512, 512))),
    backbone=dict(
        type='mmpretrain.CAEViT', arch='base', img_size=(512, 512), patch_size=16,
        out_type='featmap', out_indices=(3, 5, 7, 11), final_norm=False, drop_path_rate=0.1,
        layer_scale_init_value=0.1,
        # The position table of the checkpoint is enlarged bicubically, as in the official code;
        # 'recompute' gives exact sine-cosine positions.
        pos_mode='resize',
        # One per block, trained from zero beside the fixed positions, as in the official code; those
        # of a checkpoint, such as a fine-tuned classifier's of 14 x 14 patches, are resized.
        use_rel_pos_bias=True,
        init_cfg=dict(type='Pretrained', checkpoint=None, prefix='backbone.', resize_rel_pos=True)),
    neck=dict(type='mmpretrain.ViTFeaturePyramid', in_channels=768, norm_cfg=norm_cfg),
    decode_head=dict(
        type='UPerHead', in_channels=[768] * 4, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6),
        channels=768, dropout_ratio=0.1, num_classes=150, norm_cfg=norm_cfg, align_corners=False,
        # The mean over all pixels, the ignored ones included, as in the official code.
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=dict(
        type='FCNHead', in_channels=768, in_index=2, channels=256, num_convs=1, concat_input=False,
        dropout_ratio=0.1, num_classes=150, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)),
    # Windows overlap by a third.
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
del norm_cfg
