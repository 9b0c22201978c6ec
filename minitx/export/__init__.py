"""A trained run as something that other programs read: a folder for the hub, programs of torch and ONNX, arrays."""
