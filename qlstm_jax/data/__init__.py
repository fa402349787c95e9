"""Where sequences come from: formal languages and recall sampled on the device, text from files and TFDS."""
