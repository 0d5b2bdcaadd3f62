"""Integer codes that catalogue columns are turned into before a kernel sees them."""

CONTROL, SIS, SIE, EPL, NFW = 0, 1, 2, 3, 4
LENS_MODELS = {"CONTROL": CONTROL, "SIS": SIS, "SIE": SIE, "EPL": EPL, "NFW": NFW}

PSF_NONE, PSF_GAUSSIAN, PSF_MOFFAT, PSF_IMAGE = 0, 1, 2, 3
PSF_MODELS = {"none": PSF_NONE, "gaussian": PSF_GAUSSIAN, "moffat": PSF_MOFFAT, "image": PSF_IMAGE}
