# What benchmarks/evidence.py measures of an encoder, beside k-NN and a linear probe: in bfloat16.
_base_ = 'small.py'
tasks = dict(
    attentive=dict(options=['num_classes={classes}', 'max_epochs=2', 'optim_wrapper.amp=True']),
    finetune=dict(options=['num_classes={classes}', 'max_epochs=2', 'optim_wrapper.amp=True']))
