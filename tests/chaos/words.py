"""Settings of the command line: wrong ones, each refused in a line before all work, and right ones."""
PRETRAIN, TOKENIZER = 'configs/pretrain/cae_vitb_300e.py', 'configs/tokenizer/dvae_demo.py'
CLASSIFY, DETECT = 'configs/cls/finetune_cae_vitb_100e.py', 'configs/det/mask_rcnn_cae_vitb_1x_coco.py'
SEGMENT = 'configs/seg/upernet_cae_vitb_160k_ade20k.py'
PIPELINE = 'train_dataloader.dataset.dataset.pipeline'
OPTIMIZER, HOOKS = 'optim_wrapper.optimizer', 'default_hooks'

WRONG = {
    PRETRAIN: f"""
        tokenizers=a.pth optim_wraper.optimizer.lr=1 randomnes.seed=3 learning_rate=1 weight_decay=0.1
        epochs=3 num_worker=2 batchsize=4 seed=1 model_type=a launcher=pytorch custom_imports.imports=[os]
        pipeline=[] _base_=a.py filename=a.py train_dataloder.batch_size=4 val_interval=2 interval=3
        max_iters=5 betas=[0,0] num_classes=3 crop_size=[64,64] test_scale=[64,64] pretrainedd=a.pth
        norm_cfg.type=BN {OPTIMIZER}.lrr=1 {OPTIMIZER}.momentum=0.9 {OPTIMIZER}.type=AdamV {OPTIMIZER}.Lr=1
        model.typ=CAE optim_wrapper.acumulative_counts=2 optim_wrapper.clip_grad.max_normm=1
        optim_wrapper.clip_grad.norm=1 optim_wrapper.type=Autocast model.backbone.drop_path=0.1
        model.backbone.depth=3 model.backbone.type=CAEVitt model.backbon.arch=base model.align_wieght=1
        model.neck.layers=2 model.head.num_output=3 model.align_weight.x=1 model.backbone.arch.embed_dims=3
        compile_model.backend=eager train_dataloader.batchsize=4 train_dataloader.num_worker=2
        train_dataloader.sampler.shufle=True train_dataloader.dataset.dataset.data_rot=a
        {PIPELINE}.1.scal=[0.1,1] {PIPELINE}.9.size=3 {PIPELINE}.-1.size=3 {PIPELINE}.size=3
        {PIPELINE}.1.type=TwoViewCorp {PIPELINE}.2.num_mask=9 {HOOKS}.checkpoint.intervall=2
        {HOOKS}.checkpoint.max_keep=2 {HOOKS}.chekpoint.interval=2 {HOOKS}.loggr.interval=3
        train_cfg.max_epoch=3 train_cfg.max_iters=3 train_cfg.max_epochs.x=3 param_scheduler.warmup=2
        param_scheduler.0.warmup_epochs=2 param_scheduler.min_LR=0 randomness.sed=1
        env_cfg.cudnn_bench=True env_cfg.mp_cfg.start_method=fork auto_scale_lr.base_batch=3
        log_processor.windowsize=3 visualizer.vis_backend=[] data_preprocessor.men=3 lr=abc lr=0 lr=-1
        lr=nan lr=inf lr=True lr=[1,2] lr= lr=1e-6 {OPTIMIZER}.lr=abc {OPTIMIZER}.lr=nan
        {OPTIMIZER}.weight_decay=-1 {OPTIMIZER}.weight_decay=abc {OPTIMIZER}.weight_decay=True
        {OPTIMIZER}.betas=0.9 {OPTIMIZER}.betas=abc {OPTIMIZER}.betas=[0.9,1] {OPTIMIZER}.betas=[-0.1,0.9]
        {OPTIMIZER}.betas=[a,b] {OPTIMIZER}.betas=[0.9] {OPTIMIZER}.eps=-1 {OPTIMIZER}.eps=nan
        {OPTIMIZER}=5 {OPTIMIZER}=AdamW optim_wrapper=3 optim_wrapper.clip_grad=3
        optim_wrapper.clip_grad.max_norm=-3 optim_wrapper.clip_grad.max_norm=0
        optim_wrapper.clip_grad.max_norm=abc optim_wrapper.clip_grad.max_norm=nan
        optim_wrapper.accumulative_counts=0 optim_wrapper.accumulative_counts=-2
        optim_wrapper.accumulative_counts=1.5 optim_wrapper.accumulative_counts=abc optim_wrapper.amp=3
        optim_wrapper.amp=yes optim_wrapper.paramwise_cfg.layer_decay_rate=0
        optim_wrapper.paramwise_cfg.layer_decay_rate=2 param_scheduler.warmup_epochs=-1
        param_scheduler.warmup_epochs=301 param_scheduler.warmup_epochs=abc param_scheduler.min_lr=-1
        param_scheduler.min_lr=1 param_scheduler.min_lr=abc param_scheduler.begin=-1
        param_scheduler.by_epoch=3 max_epochs=0 max_epochs=-1 max_epochs=1.5 max_epochs=abc max_epochs=5
        max_epochs=True max_epochs=[1] max_epochs=nan train_cfg.max_epochs=0 train_cfg.max_epochs=inf
        train_cfg.val_interval=0 batch_size=0 batch_size=-4 batch_size=1.5 batch_size=abc batch_size=True
        train_dataloader.batch_size=0 num_workers=-1 num_workers=abc num_workers=1.5
        train_dataloader.num_workers=-1 train_dataloader.prefetch_factor=0
        train_dataloader.prefetch_factor=-1 train_dataloader.drop_last=3 train_dataloader.drop_last=no
        train_dataloader=5 train_dataloader.sampler=5 {PIPELINE}.1.scale=[0,0] {PIPELINE}.1.scale=[1,0.2]
        {PIPELINE}.1.scale=[0,1] {PIPELINE}.1.scale=[0.1,2] {PIPELINE}.1.scale=0.5 {PIPELINE}.1.scale=abc
        {PIPELINE}.1.scale=[a,b] {PIPELINE}.1.scale=[0.1,nan] {PIPELINE}.1.ratio=[0,1]
        {PIPELINE}.1.ratio=[2,1] {PIPELINE}.1.ratio=[-1,1] {PIPELINE}.1.flip_prob=7
        {PIPELINE}.1.flip_prob=-0.1 {PIPELINE}.1.flip_prob=abc {PIPELINE}.1.flip_prob=nan
        {PIPELINE}.1.size=0 {PIPELINE}.1.size=-8 {PIPELINE}.1.size=abc {PIPELINE}.1.size=7.5
        {PIPELINE}.1.target_size=0 {PIPELINE}.2.grid=0 {PIPELINE}.2.grid=[14,0] {PIPELINE}.2.num_masked=0
        {PIPELINE}.2.num_masked=-3 {PIPELINE}.2.num_masked=1.5 {PIPELINE}.2.num_masked=abc
        {PIPELINE}.2.min_per_block=0 {PIPELINE}.2.max_per_block=0 {PIPELINE}.2.aspect=[0,1] {PIPELINE}=abc
        {PIPELINE}.0=abc model=abc model=3 model=None log_level=FOO log_level=3 model.backbone=5
        model.align_weight=-1 model.align_weight=abc model.align_weight=nan model.align_weight=True
        model.backbone.drop_path_rate=1 model.backbone.drop_path_rate=-0.1 model.backbone.drop_path_rate=2
        model.backbone.drop_path_rate=abc model.backbone.drop_path_rate=nan model.head.drop_path_rate=1
        model.backbone.layer_scale_init_value=-1 model.backbone.img_size=0 model.backbone.img_size=-224
        model.backbone.img_size=abc model.backbone.img_size=[224,0] model.backbone.patch_size=0
        model.backbone.patch_size=-16 model.backbone.patch_size=abc model.backbone.mlp_ratio=0
        model.backbone.frozen_stages=-2 model.backbone.frozen_stages=1.5 model.backbone.with_cp=3
        model.neck.depth=0 model.neck.depth=-1 model.neck.depth=1.5 model.neck.num_heads=0
        model.neck.num_heads=7 model.neck.embed_dims=0 model.neck.embed_dims=770 model.head.num_heads=5
        model.head.num_outputs=0 model.head.num_outputs=abc model.neck.grid_size=0
        {HOOKS}.checkpoint.interval=0 {HOOKS}.checkpoint.interval=-3 {HOOKS}.checkpoint.interval=1.5
        {HOOKS}.checkpoint.interval=abc {HOOKS}.checkpoint.max_keep_ckpts=-3
        {HOOKS}.checkpoint.max_keep_ckpts=0 {HOOKS}.logger.interval=0 {HOOKS}.logger.interval=abc
        {HOOKS}.checkpoint=abc {HOOKS}.checkpoint=3 log_processor.window_size=0 log_processor=3
        randomness.seed=-1 randomness.seed=1.5 randomness.seed=abc randomness.seed=True
        randomness.seed=99999999999 randomness=3 auto_scale_lr.base_batch_size=0 resume=3 resume=auto
        load_from=5 load_from=[1] work_dir=5 work_dir=True data_root=5 data_root=[1,2] data_root=[5]
        data_root=[] data_root=[[a]] shards=5 shards=[] shards=[5] shards=[[a]] tokenizer=5 tokenizer=True
        default_scope=5 data_preprocessor.std=[0,0,0] data_preprocessor.mean=abc""",
    TOKENIZER: """
        model.num_codes=0 model.num_codes=abc model.hidden_dims=-1 model.weight=abc model.weight=nan
        model.temperature=[0,0] model.temperature=abc model.num_groups=0 model.blocks_per_group=0
        model.code_dims=1.5 model.num_code=3 model.stem_stride=0 tokenizer=a.pth pretrained=a.pth""",
    CLASSIFY: f"""
        num_classes=0 num_classes=-3 num_classes=abc num_classes=1.5 num_classes=True
        model.head.num_classes=0 model.head.num_class=3 model.head.loss.label_smooth_val=1
        model.head.loss.label_smooth_val=-1 model.train_cfg.augments.0.alpha=0
        model.train_cfg.augments.0.alpha=-1 model.train_cfg.augments.5.alpha=1
        model.train_cfg.augments.0.alfa=1 model.backbone.out_indices=abc {PIPELINE}.1.scale=0
        {PIPELINE}.1.crop_ratio_range=[0,0] {PIPELINE}.1.crop_ratio_range=[1,0.2]
        {PIPELINE}.1.crop_ratio_range=[0.1,7] {PIPELINE}.2.prob=7 {PIPELINE}.2.prob=-1
        {PIPELINE}.2.prob=abc {PIPELINE}.4.erase_prob=2 {PIPELINE}.4.max_area_ratio=2
        {PIPELINE}.3.num_policies=0 val_evaluator.topk=[0] val_dataloader.batch_size=0
        test_dataloader.num_workers=-1 pretrained=5 train_pipeline=[] train_pipeline.0.type=A
        bgr_mean=[1,2,3] optim_wrapper.paramwise_cfg.layer_decay_rate=-1""",
    DETECT: """
        model.roi_head.bbox_head.num_clases=3 model.test_cfg.rcnn.score_thrr=0.1
        model.test_cfg.rcnn.score_thr=2 model.test_cfg.rcnn.nms.iou_threshold=-1 model.neck.0.in_chanels=3
        model.neck.7.in_channels=3 model.rpn_head.anchor_generator.scale=[8]
        model.test_cfg.rcnn.max_per_im=3 model.roi_head.bbox_head.loss_cls.loss_weight=-1
        model.train_cfg.rpn.sampler.pos_fraction=7 num_class=3 num_classes=0 crop_size=0 crop_size=abc
        crop_size=[0,0] train_scales=[[0,0]] test_scale=[-1,800] test_scale=800 param_scheduler.0.end=0
        param_scheduler.0.start_factor=0 param_scheduler.1.milestones=[0] param_scheduler.1.milestones=abc
        param_scheduler.1.gamma=-1 param_scheduler.2.gamma=1 max_iters=100 param_scheduler.1.gama=1
        train_cfg.max_epochs=-3 model.backbone.type=CAEViT model.backbone.type=mmpretrain.CAEVit""",
    SEGMENT: """
        max_epochs=3 max_iters=0 max_iters=100 max_iters=abc param_scheduler.0.end=200000
        param_scheduler.1.eta_min=1 param_scheduler.1.power=0 model.decode_head.dropout=0.1
        model.decode_head.dropout_ratio=1 model.decode_head.dropout_ratio=-1 model.decode_head.chanels=3
        model.auxiliary_head.loss_decode.loss_weight=-1 model.test_cfg.stride=[0,0]
        model.test_cfg.strid=[1,1] crop_size=512 crop_size=[512,0] train_cfg.val_interval=0
        train_cfg.val_intervall=10"""}
WRONG = {config: options.split() for config, options in WRONG.items()}

RIGHT = {
    PRETRAIN: f"""
        lr=1 lr=3e-4 batch_size=4 max_epochs=20 num_workers=0 tokenizer=a.pth data_root=/a data_prefix=
        {OPTIMIZER}.amsgrad=True {OPTIMIZER}.type=SGD optim_wrapper.accumulative_counts=2 randomness.seed=7
        optim_wrapper.clip_grad.norm_type=1 optim_wrapper.clip_grad=None optim_wrapper.amp=True
        optim_wrapper.paramwise_cfg.layer_decay_rate=0.75 optim_wrapper.dtype=bfloat16
        {HOOKS}.ema.type=EMAHook {HOOKS}.checkpoint.interval=-1 {HOOKS}.checkpoint.save_best=auto
        {HOOKS}.checkpoint.max_keep_ckpts=-1 {HOOKS}.checkpoint.by_epoch=False {HOOKS}.timer=None
        custom_hooks=[] compile_model=True compile_model=False resume=True load_from=a.pth work_dir=a
        find_unused_parameters=True model.backbone.use_rel_pos_bias=True model.backbone.frozen_stages=2
        model.backbone.arch=large model.backbone.img_size=[224,448] model.backbone.init_cfg.type=Pretrained
        train_dataloader.timeout=60 train_dataloader.prefetch_factor=4
        train_dataloader.sampler.round_up=True train_dataloader.num_batch_per_epoch=10
        {PIPELINE}.1.flip_prob=0 {PIPELINE}.1.scale=[0.2,1] {PIPELINE}.2.type=RandomMask
        {PIPELINE}.2.aspect=[0.5,2] param_scheduler.warmup_epochs=0.5 param_scheduler.min_lr=0
        train_cfg.val_interval=5 log_level=DEBUG experiment_name=a env_cfg.cudnn_benchmark=False
        env_cfg.dist_cfg.timeout=1800 randomness.deterministic=True data_preprocessor.std=[1,1,1]
        val_evaluator=[] sync_bn=torch auto_scale_lr.enable=True model.target_generator.init_cfg=None
        model._scope_=mmpretrain visualizer.save_dir=a""",
    CLASSIFY: f"""
        pretrained=a.pth pretrained=none num_classes=10 model.backbone.init_cfg.resize_rel_pos=True
        model.head.loss.type=CrossEntropyLoss model.train_cfg=None {PIPELINE}.1.interpolation=bilinear
        val_dataloader=None num_workers=2 {PIPELINE}.4.type=RandomErasing
        model.neck.type=GlobalAveragePooling""",
    DETECT: """
        data_root=/a classes=[a,b] num_classes=3 crop_size=[384,640] model.backbone.with_cp=False
        model.rpn_head.anchor_generator.octave_base_scale=4 model.test_cfg.rcnn.nms.type=soft_nms
        model.test_cfg.rcnn.nms.min_score=0.05 model.roi_head.bbox_head.reg_class_agnostic=True
        train_dataloader.dataset.dataset.metainfo.classes=[a] train_dataloader.dataset.dataset.indices=10
        param_scheduler.1.milestones=[5] val_evaluator.classwise=True
        model.backbone.type=mmpretrain.CAEViT""",
    SEGMENT: """
        max_iters=20000 batch_size=4 lr=1e-4 model.decode_head.ignore_index=0 crop_size=[256,256]
        model.decode_head.loss_decode.avg_non_ignore=True model.backbone.pos_mode=recompute model.neck=None
        test_evaluator.iou_metrics=[mIoU,mDice] model.decode_head.loss_decode.class_weight=[1,2]"""}
RIGHT = {config: options.split() for config, options in RIGHT.items()}
