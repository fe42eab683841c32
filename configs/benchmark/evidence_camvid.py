# The same for street scenes: segmentation.
_base_ = 'small.py'
encoder = 'configs/pretrain/cae_vitt_camvid.py'
tasks = dict(
    upernet=dict(run='configs/seg/upernet_cae_vitt_camvid.py',
                 options=['max_iters=300', 'optim_wrapper.amp=True']))
