"""The parts of `swap`: a trace of the network, what each of its tensors is, and the counterpart of each of its steps."""
