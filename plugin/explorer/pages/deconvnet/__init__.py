"""Units without a picture and with one."""
