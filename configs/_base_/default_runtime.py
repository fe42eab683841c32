# How a run is logged, saved and seeded. Every config inherits this file.
custom_imports = dict(imports=['cae_mm'], allow_failed_imports=False)
default_scope = 'mmpretrain'

# Keys that change results.
randomness = dict(seed=0)  # of the weights, the order of the samples, their crops and masks, and all noise
load_from = None

# Keys that do not. Names carry their scope, so that detection and segmentation configs, which have
# another default scope, can inherit this file too.
resume = False
log_level = 'INFO'
default_hooks = dict(
    runtime_info=dict(type='mmpretrain.TrainingMonitor'),
    timer=dict(type='IterTimerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmpretrain.SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    batch_size=dict(type='mmpretrain.BatchSizeHook'),
    bad_files=dict(type='mmpretrain.BadFilesHook'),
    strict_load=dict(type='mmpretrain.StrictLoadHook'),
    signals=dict(type='mmpretrain.SignalHook'),
    hangs=dict(type='mmpretrain.HangHook'))
# The logger's interval: on GPUs the time of a single step is not that of its computation.
log_processor = dict(window_size=50)
visualizer = dict(type='Visualizer', vis_backends=[dict(type='mmpretrain.LogBackend')])
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
