# The small CAE with neither alignment nor decoder.
_base_ = './cae_vitt_eurosat_no_decoder.py'
model = dict(align_weight=0.)
