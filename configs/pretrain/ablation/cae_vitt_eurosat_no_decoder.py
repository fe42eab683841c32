# The small CAE without decoder: the targets are read straight from the regressor.
_base_ = './cae_vitt_eurosat_whole.py'
model = dict(head=dict(depth=0))
