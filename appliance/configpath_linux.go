package main

// configPath is the configuration file that is read unless another one is named.
func configPath() string { return "/etc/seedbed/seedbed.yaml" }
