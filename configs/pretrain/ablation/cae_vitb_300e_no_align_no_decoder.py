# CAE with neither alignment nor decoder. The paper reports linear 60.3, attentive 71.2; with both 64.1 and
# 73.8.
_base_ = './cae_vitb_300e_no_decoder.py'
model = dict(align_weight=0.)
