"""Sources of sequences: formal languages and recall sampled on the device, text from files and TFDS."""
