# The test of upernet_cae_vitl_160k_ade20k.py at six scales, each mirrored and not, with its checkpoints.
# The authors report no such number; it sees 17 times the pixels.
#   tools/dist_test.sh configs/seg/upernet_cae_vitl_160k_ade20k_ms.py CHECKPOINT 8
_base_ = './upernet_cae_vitl_160k_ade20k.py'
model = dict(_delete_=True, type='SegTTAModel', module={{_base_.model}})
test_dataloader = dict(dataset=dict(pipeline={{_base_.tta_pipeline}}))
