"""Attribution for convolutional networks with Captum's API: deconvnet, guided backprop and their relatives."""
