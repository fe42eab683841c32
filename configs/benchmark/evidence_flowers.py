# The same for photographs of 96 px, of which there are fewer: about as many steps.
_base_ = 'small.py'
encoder = 'configs/pretrain/cae_vitt_flowers.py'
tasks = dict(
    attentive=dict(run='configs/cls/attentive_cae_vitt_flowers.py',
                   options=['num_classes={classes}', 'max_epochs=6', 'optim_wrapper.amp=True']),
    finetune=dict(run='configs/cls/finetune_cae_vitt_flowers.py',
                  options=['num_classes={classes}', 'max_epochs=6', 'optim_wrapper.amp=True']))
