# The small CAE without the alignment of latents.
_base_ = './cae_vitt_eurosat_whole.py'
model = dict(align_weight=0.)
