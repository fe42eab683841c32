# CAE without the alignment of latents. The paper reports linear 63.1, attentive 72.7; with alignment 64.1
# and 73.8.
_base_ = '../cae_vitb_300e.py'
model = dict(align_weight=0.)
